"""Leave nothing behind a program that ended with a user's error before it made anything."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from fss.files import remove_empty
from fss.runs.claims import CLAIM

_LOGS = frozenset({".hydra", "train.log", "eval.log", "csv", "tensorboard", "wandb_id"})
"""What a run writes before its first checkpoint."""


def remove_if_unused(folder: Path) -> None:
    """Remove the folder of a run that made nothing but logs, and the folders above it that are empty then.

    Args:
        folder: ``multirun/<group>/<run>``; left alone if it holds a checkpoint, a result or anything else.
    """
    if not folder.is_dir():
        return
    made = {p.name for p in folder.iterdir() if not p.name.startswith(CLAIM)}
    if not made <= _LOGS | {"checkpoints"} or any((folder / "checkpoints").rglob("*")):
        return
    logging.shutdown()
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith(CLAIM):  # the folder goes with its claim
            path.unlink(missing_ok=True)
    remove_empty(folder)
