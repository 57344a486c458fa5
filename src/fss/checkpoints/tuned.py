"""Files of tuned values only: for SVF a few tens of kB instead of a whole network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fss.errors import FssError, first_line
from fss.files import atomic
from fss.finetune.base import load_trained_state, trained_state
from fss.methods.releases import STAGES
from fss.types import StagedBackbone

FORMAT = 1


def save_tuned(path: Path, backbone: StagedBackbone, card: dict[str, Any]) -> None:
    """Write the values that a strategy trained.

    Args:
        path: file to write, atomically.
        backbone: with its strategy injected.
        card: plain facts stored beside the values: strategy, backbone, weights.
    """
    with atomic(path) as file:
        torch.save({"format": FORMAT, "card": card, "values": trained_state(backbone)}, file)


def apply_tuned(path: Path, backbone: StagedBackbone) -> dict[str, Any]:
    """Load stored values into a backbone.

    Of stages after the last one in the file, which the head of that run did not read, the backbone keeps its own.

    Args:
        path: file of :func:`save_tuned`.
        backbone: the same pretrained backbone, with the same strategy injected.

    Returns:
        The card.

    Raises:
        FssError: if the file cannot be read or belongs to another backbone or strategy.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        written, values, card = content["format"], content["values"], content["card"]
    except Exception as error:  # damaged and unsafe files raise many types
        raise FssError(f"{path} is no file of tuned values: {first_line(error)}") from error
    if written != FORMAT:
        raise FssError(f"{path} has format {written}, this version of fss reads format {FORMAT}. Train the run again.")
    load_trained_state(backbone, _later_stages(backbone, values) | values)
    return dict(card)


def _later_stages(backbone: StagedBackbone, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what would train after the last stage that has values."""
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    stages = [{names[id(p)] for p in backbone.stage(i).parameters()} for i in STAGES]
    last = max((i for i, stage in enumerate(stages) if stage & values.keys()), default=STAGES[-1])
    later: set[str] = set().union(*stages[last + 1 :])
    return {name: value for name, value in trained_state(backbone).items() if name in later}
