"""What every run does with a trainer: fit, stop where a signal says so, test, show."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console

from fss.lit.callbacks.snapshots import Stopped
from fss.reports.strategy_table import strategy_table
from fss.results import load_result
from fss.runs.job import Job
from fss.runs.processes.signals import inside_slurm, requeue
from fss.runs.resume import Interrupted

log = logging.getLogger(__name__)

_BRANCHES = {
    "miou_m": "of the meta learner alone",
    "miou_b": "of the base learner on base classes",
    "miou_base": "of the base classes",
    "miou_novel": "of the novel classes",
}


def fit(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, resumed: Interrupted | None
) -> None:
    """Train, from the checkpoint of an interrupted identical run; end the process if a signal says so.

    Args:
        trainer: Lightning's.
        module: what is trained.
        data: on what.
        resumed: where to continue, or None.
    """
    if resumed is not None:
        log.info("Continuing the interrupted run at epoch %d, step %d: %s", resumed.epoch, resumed.step, resumed.path)
        log.info("(resume=never starts from the beginning)")
    path = None if resumed is None else str(resumed.path)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    except Stopped as stop:
        if not trainer.is_global_zero:
            sys.exit(0)  # a launcher that sees another code kills the first process before it can say anything
        log.warning("Stopped at step %d. The same command continues from there.", trainer.global_step)
        if stop.signum in (signal.SIGUSR1, signal.SIGUSR2) and inside_slurm():
            requeue()
        sys.exit(128 + stop.signum)


def test(job: Job, trainer: pl.Trainer, module: Any, data: pl.LightningDataModule) -> float:
    """Test the checkpoint that the run's rule selects, and show the scores.

    Args:
        job: the run.
        trainer: Lightning's.
        module: what was trained; has ``test_scores`` afterwards.
        data: on what.

    Returns:
        mIoU in percent.
    """
    best = "last" if job.config["selection"] == "last" else "best"
    checkpoint = job.folder / "checkpoints" / f"{best}.ckpt"
    found = str(checkpoint) if checkpoint.is_file() else None  # nothing is saved when no step was taken
    trainer.test(module, datamodule=data, ckpt_path=found, verbose=False, weights_only=True)
    if trainer.is_global_zero:
        show(job.folder)
    return 100 * float(module.test_scores.miou)


def show(folder: Path) -> None:
    """Print a run's scores.

    Args:
        folder: the run's folder.
    """
    result = load_result(folder / "result.json")
    Console().print(strategy_table([result]))
    branches = {name: getattr(result.scores, key) for key, name in _BRANCHES.items()}
    known = [f"{name} {value:.2f}" for name, value in branches.items() if value is not None]
    if known:
        log.info("mIoU: %s", ", ".join(known))
    log.info("Result: %s", folder / "result.json")
