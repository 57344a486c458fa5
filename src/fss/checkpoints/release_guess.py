"""Guess the content of a release's file from names and sizes, to suggest the options it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from fss.checkpoints.release_models import CLASSES, Released

RESNETS = {6: "resnet50", 23: "resnet101", 36: "resnet152"}
"""Number of blocks in stage 3 -> backbone."""
BACKBONES = (*RESNETS.values(), "vgg16")
_TELLING = (("gram_merge.", "bam"), ("alpha_conv.", "pfenet"), ("encoder.", "base_learner"), ("ASPP_meta.", "baseline"))


def advice(state: Mapping[str, Tensor], released: Released) -> str:
    """Suggest options for a file that does not fit the given ones.

    Args:
        state: its tensors.
        released: the given options.

    Returns:
        A sentence.
    """
    given = {
        "source": released.source,
        "method": released.method,
        "backbone": released.backbone,
        "data": released.data,
        "shot": str(released.shot),
        "finetune": released.finetune,
    }
    needed = [f"--{option} {value}" for option, value in _guesses(state) if given[option] != value]
    if needed:
        return f"By its names it needs {' '.join(needed)}."
    return "Its other names fit these options: it was changed, or is of another version. Fetch it again."


def _guesses(state: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    if any(k.startswith("layer0p.") for k in state):
        yield "source", "svf"
    elif "gram_merge.weight" in state:
        yield "source", "bam"
    for prefix, method in _TELLING:
        if any(k.startswith(prefix) for k in state):
            yield "method", method
            break
    blocks = len({k.split(".")[1] for k in state if k.startswith("layer3.") and ".conv1." in k})
    if blocks in RESNETS:
        yield "backbone", RESNETS[blocks]
    elif any(k.startswith("layer3.0.") for k in state) and not blocks:
        yield "backbone", "vgg16"
    bias = state.get("learner_base.1.4.bias", state.get("cls.4.bias"))
    for data, classes in CLASSES.items():
        if bias is not None and bias.numel() == classes:
            yield "data", data
    if "kshot_rw.2.bias" in state:
        yield "shot", str(state["kshot_rw.2.bias"].numel())
    elif "ASPP_meta.layer6_0.0.weight" in state:
        yield "shot", "1"
    if any(k.startswith("layer3.") for k in state):
        yield "finetune", "svf" if any(k.endswith(".vector_S") for k in state) else "freeze"
