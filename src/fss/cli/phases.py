"""What every run does with a trainer: fit, stop where a signal says so, test, show."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss.cli.edge import determining, identity
from fss.cli.resume import Interrupted
from fss.cli.slurm import inside_slurm, requeue
from fss.cli.trainer import Job
from fss.reports.results import load_result

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger(__name__)

_FURTHER = {
    "miou_m": "of the meta learner alone",
    "miou_b": "of the base learner on base classes",
    "miou_base": "of the base classes",
    "miou_novel": "of the novel classes",
}


def finished(job: Job) -> float | None:
    """Look for a finished run of the same identity.

    Args:
        job: the run.

    Returns:
        Its mIoU in percent, or None if it must run, as with ``overwrite=true``.

    Raises:
        FssError: if its result is damaged.
    """
    path = job.folder / "result.json"
    if job.config["overwrite"] or not path.is_file():
        return None
    result = load_result(path)
    return result.scores.miou if result.identity == identity(job.config) else None


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
    from fss.lit.callbacks.snapshots import Stopped

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
        if stop.signum == signal.SIGUSR1 and inside_slurm():
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
    from rich.console import Console

    from fss.reports.tables import strategy_table

    result = load_result(folder / "result.json")
    Console().print(strategy_table([result]))
    further = {name: getattr(result.scores, key) for key, name in _FURTHER.items()}
    known = [f"{name} {value:.2f}" for name, value in further.items() if value is not None]
    if known:
        log.info("mIoU: %s", ", ".join(known))
    log.info("Result: %s", folder / "result.json")


def card(job: Job) -> dict[str, Any]:
    """Return the plain facts that checkpoints carry; the model can be rebuilt from them.

    Args:
        job: the run.
    """
    return {
        "format": 1,
        "config": job.config,
        "determining": determining(job.config),
        "identity": identity(job.config),
    }
