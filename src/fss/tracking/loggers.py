"""Loggers of a run: CSV, TensorBoard, and W&B with or without a key."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from fss.files import atomic
from fss.lit.history import History
from fss.tracking.labels import labels
from fss.tracking.wandb_mode import wandb_mode

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fss.model.checkpoint import Checkpoint


class Continued(Protocol):
    """Where an interrupted run continues.

    Attributes:
        step: optimiser steps taken.
        rows: rows logged.
    """

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        ...

    @property
    def rows(self) -> int:
        """Rows logged."""
        ...


def build_loggers(
    node: Mapping[str, Any], folder: Path, name: str, config: dict[str, Any], resumed: Continued | None = None
) -> list[Logger]:
    """Build the loggers that the configuration asks for.

    Args:
        node: config of the logger group.
        folder: run folder.
        name: run name.
        config: resolved configuration, stored with the W&B run.
        resumed: where an interrupted run continues; its logs continue from there.

    Returns:
        The loggers.

    Raises:
        FssError: if the W&B mode is unknown.
    """
    loggers: list[Logger] = []
    if node["csv"]:
        loggers.append(History(folder, keep=resumed.rows if resumed else 0))
    if node["tensorboard"]:
        purge = resumed.step if resumed else None  # hides what was logged after the checkpoint
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version="", purge_step=purge))
    mode = wandb_mode(node["wandb"])
    if mode != "disabled":
        from fss.tracking.wandb_logger import GuardedWandbLogger  # importing wandb takes a second

        run_id = wandb_id(folder, new=resumed is None)
        run_labels = labels(config, _experiment())
        loggers.append(GuardedWandbLogger(folder, name, node["project"], run_id, run_labels, online=mode == "online"))
    return loggers


def recorders(loggers: Sequence[Logger], name: str, base: Checkpoint | None = None) -> list[pl.Callback]:
    """Build the callbacks of the loggers that record more than scalars, i.e. W&B.

    Args:
        loggers: loggers of the run.
        name: run name.
        base: base learner that the run builds on, if any.

    Returns:
        The callbacks, to be placed after the result writer; empty without W&B.
    """
    if not any(isinstance(logger, WandbLogger) for logger in loggers):
        return []
    from fss.tracking.recorder import WandbRecorder
    from fss.tracking.wandb_logger import GuardedWandbLogger

    base_checkpoint = None if base is None else (base.identity, base.path)
    return [
        WandbRecorder(logger, name, base_checkpoint) for logger in loggers if isinstance(logger, GuardedWandbLogger)
    ]


def wandb_id(folder: Path, new: bool) -> str:
    """Return the W&B id of a run, which a continued run keeps.

    Args:
        folder: run folder; its file ``wandb_id`` stores the id.
        new: make a new id.

    Returns:
        The id; empty in processes that log nothing.
    """
    path = folder / "wandb_id"
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return ""  # only rank 0 logs, and it owns the id
    if new or not path.is_file():
        with atomic(path) as file:
            file.write(uuid.uuid4().hex[:12].encode())
    return path.read_text().strip()


def _experiment() -> str | None:
    """Return the choice of ``experiment=``, if any."""
    if not HydraConfig.initialized():
        return None
    choice = HydraConfig.get().runtime.choices.get("experiment")
    return None if choice in (None, "null") else str(choice)
