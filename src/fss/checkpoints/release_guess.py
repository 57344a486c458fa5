"""Guess the content of a release's file from names and sizes, to suggest the options it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from fss.checkpoints.known_releases import known_releases
from fss.checkpoints.release_models import CLASSES
from fss.methods.releases import Released

_BLOCK = re.compile(r"(?:^|\.)layer3\.(\d+)\.(?:conv1\.)?(weight|vector_S|conv_V\.weight)$")
"""A layer of stage 3: the convolution conv1 of a ResNet's block, or a layer of VGG."""
_RESNETS = {6: "resnet50", 23: "resnet101", 36: "resnet152"}
"""Number of blocks in stage 3 -> backbone."""
_SWIN = ".attn.relative_position_bias_table"
"""A tensor of every block of a Swin; the only one in a release is Swin-B."""


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
    needed = [f"--{option} {value}" for option, value in _guesses(state, released.source) if given[option] != value]
    if needed:
        return f"By its names it needs {' '.join(needed)}."
    return "Its other names fit these options: it was changed, or is of another version. Fetch it again."


def _guesses(state: Mapping[str, Tensor], source: str) -> Iterator[tuple[str, str]]:
    told = [
        (pair, release)
        for pair, release in known_releases().items()
        if release.telling and all(any(k.startswith(prefix) for k in state) for prefix in release.telling)
    ]
    most = max((len(release.telling) for _, release in told), default=0)
    told = [(pair, release) for pair, release in told if len(release.telling) == most]
    for (name, method), release in sorted(told, key=lambda one: one[0][0] != source)[:1]:
        yield "source", name
        yield "method", method
        if release.classes in state:
            count = state[release.classes].numel()
            yield from (("data", data) for data, classes in CLASSES.items() if classes == count)
    layers = [match for key in state if (match := _BLOCK.search(key))]
    if layers:
        blocks = {match[1] for match in layers if ".conv1." in match[0]}
        if len(blocks) in _RESNETS:
            yield "backbone", _RESNETS[len(blocks)]
        elif not blocks:
            yield "backbone", "vgg16"
    elif any(k.endswith(_SWIN) for k in state):
        yield "backbone", "swin_base"
    if "kshot_rw.2.bias" in state:
        yield "shot", str(state["kshot_rw.2.bias"].numel())
    elif "ASPP_meta.layer6_0.0.weight" in state:
        yield "shot", "1"
    if layers:
        yield "finetune", "svf" if any(k.endswith(".vector_S") for k in state) else "freeze"
