"""Find the checkpoint that an interrupted run continues from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fss.commands import noun
from fss.config.identity import identity
from fss.errors import FssError, unreadable
from fss.files import CHECKPOINT_FORMAT

if TYPE_CHECKING:
    from fss.runs.job import Job


@dataclass(frozen=True)
class Interrupted:
    """A run that was interrupted.

    Attributes:
        path: its checkpoint.
        epoch: number of the epoch it was written in.
        step: optimiser steps taken.
        rows: rows logged.
    """

    path: Path
    epoch: int
    step: int
    rows: int


def interrupted(job: Job) -> Interrupted | None:
    """Look for a checkpoint of the same run.

    Args:
        job: the run.

    Returns:
        Where to continue, or None to start from the beginning.

    Raises:
        FssError: if the checkpoint is damaged or of another run.
    """
    path = job.folder / "checkpoints" / "last.ckpt"
    if job.config["resume"] != "auto" or not path.is_file():
        return None
    import torch

    begin = "Add resume=never to start from the beginning."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # damaged and unsafe files raise many types
        raise FssError(f"The run cannot be continued, {path} is unusable: {unreadable(error)}. {begin}") from error
    card = content.get("fss") if isinstance(content, Mapping) else None
    position = content.get("fss_position") if isinstance(content, Mapping) else None
    if not isinstance(card, Mapping) or not isinstance(position, Mapping):
        raise FssError(f"The run cannot be continued, {path} is no checkpoint of {noun()}. {begin}")
    if card.get("format") != CHECKPOINT_FORMAT:
        raise FssError(
            f"The run cannot be continued, {path} has format {card.get('format')}, this version of fss reads format "
            f"{CHECKPOINT_FORMAT}. {begin}"
        )
    if card.get("identity") != identity(job.config):
        raise FssError(f"The run cannot be continued, {path} was written by a run with other options. {begin}")
    return Interrupted(path, int(content["epoch"]), int(content["global_step"]), int(position["rows"]))
