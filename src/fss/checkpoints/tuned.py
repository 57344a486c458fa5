"""Files of tuned values only: for SVF a few tens of kB instead of a whole network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fss.errors import FssError, first_line
from fss.files import atomic
from fss.finetune.base import load_trained_state, trained_state
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
    load_trained_state(backbone, values)
    return dict(card)
