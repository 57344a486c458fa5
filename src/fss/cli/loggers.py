"""Loggers of a run: CSV, TensorBoard, and W&B with or without a key."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger

from fss.cli.resume import Interrupted
from fss.cli.wandb_mode import wandb_mode
from fss.files import atomic
from fss.lit.history import History


def build_loggers(
    node: Mapping[str, Any], folder: Path, name: str, config: dict[str, Any], resumed: Interrupted | None = None
) -> list[Logger]:
    """Build the loggers that the configuration asks for.

    Args:
        node: the logger group.
        folder: the run's folder.
        name: the run's name.
        config: resolved configuration, stored with the W&B run.
        resumed: the interrupted run that is continued: its logs go on, from its checkpoint.

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
        from pytorch_lightning.loggers import WandbLogger  # wandb alone takes a second to import

        loggers.append(
            WandbLogger(
                name=name,
                id=wandb_id(folder, new=resumed is None),
                resume="allow",
                project=node["project"],
                save_dir=folder,
                offline=mode == "offline",
                group=str(config["group"]),
                job_type=str(config["finetune"]["name"]),
                tags=[str(config[g]["name"]) for g in ("method", "backbone", "finetune", "data")],
                config=config,
            )
        )
    return loggers


def wandb_id(folder: Path, new: bool) -> str:
    """Return the W&B id of a run, so that a continued run stays one run there.

    Args:
        folder: of the run; the id is kept in ``wandb_id`` below it.
        new: make another one.

    Returns:
        The id.
    """
    path = folder / "wandb_id"
    if new or not path.is_file():
        with atomic(path) as file:
            file.write(uuid.uuid4().hex[:12].encode())
    return path.read_text().strip()
