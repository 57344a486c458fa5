"""The Python interface: load a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fss.cli.build import build_model, build_strategy
from fss.cli.instantiate import targets
from fss.errors import FssError, first_line
from fss.finetune.base import Strategy
from fss.methods.segmenter import FewShotSegmenter

OWN = ("fss.",)
_BUILT = ("backbone", "method", "finetune")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Attributes:
        path: the file.
        config: configuration of the run that wrote it.
        identity: hash of that run.
        state: parameter name -> tensor of the model.
    """

    path: Path
    config: dict[str, Any]
    identity: str
    state: dict[str, torch.Tensor]


def read_checkpoint(path: str | Path, trusted: Sequence[str] = ()) -> Checkpoint:
    """Read a checkpoint without running anything in it.

    Args:
        path: a ``.ckpt`` file of a run.
        trusted: import prefixes, besides ``fss.``, whose classes the checkpoint may name.

    Returns:
        Its configuration and weights.

    Raises:
        FssError: if the file is missing, damaged, no checkpoint of this package, or names other classes.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FssError(f"There is no checkpoint {file}. Runs keep theirs in multirun/<group>/<run>/checkpoints/.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and unsafe files raise many types
        raise FssError(
            f"{file} is no readable checkpoint: {first_line(error)} Pickled code is never run; a damaged "
            "file must be written again."
        ) from error
    card = content.get("fss") if isinstance(content, Mapping) else None
    if not isinstance(card, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise FssError(f"{file} was not written by fss: it lacks the configuration of its run.")
    config = dict(card["config"])
    allowed = (*OWN, *(f"{t.rstrip('.')}." for t in trusted))
    for target in targets({group: config[group] for group in _BUILT}):
        if not target.startswith(allowed):
            raise FssError(
                f"{file} wants to build {target}, which is not part of fss. If you trust it: "
                f'fss.load(path, trusted=["{target.split(".")[0]}"])'
            )
    state = {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}
    return Checkpoint(file, config, str(card["identity"]), state)


def load(
    path: str | Path, device: str | torch.device = "cpu", merge: bool = False, trusted: Sequence[str] = ()
) -> FewShotSegmenter:
    """Load a trained model, ready to segment.

    Args:
        path: a ``.ckpt`` file of a run.
        device: where to put it.
        merge: turn tuned layers back into plain convolutions (equal output).
        trusted: import prefixes, besides ``fss.``, whose classes the checkpoint may name.

    Returns:
        ``model(query, support_images, support_masks) -> logits (B, 2, H, W)``, in evaluation mode.

    Raises:
        FssError: if the file is missing, damaged, or does not fit the model it describes.
    """
    model, strategy = rebuild(read_checkpoint(path, trusted))
    if merge:
        strategy.merge(model.backbone)
    return model.to(device).eval()


def rebuild(checkpoint: Checkpoint) -> tuple[FewShotSegmenter, Strategy]:
    """Build the model that a checkpoint describes and give it the trained weights.

    Args:
        checkpoint: what :func:`read_checkpoint` returned.

    Returns:
        The model, with its fine-tune strategy injected, and the strategy.

    Raises:
        FssError: if the weights do not fit the model.
    """
    model = build_model(checkpoint.config, pretrained=False)
    strategy = build_strategy(checkpoint.config["finetune"])
    strategy.apply(model.backbone)
    try:
        model.load_state_dict(checkpoint.state, strict=True)
    except RuntimeError as error:
        raise FssError(f"{checkpoint.path} does not fit the model it describes: {error}") from error
    return model, strategy
