"""Train and test one run."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fss.cli.edge import check, determining, identity, plain, slug
from fss.cli.resume import Interrupted, interrupted
from fss.cli.signals import ending_on_signals
from fss.cli.slurm import inside_slurm, requeue
from fss.cli.tidy import tidy
from fss.cli.trainer import Job, build_trainer, checkpointing, facts
from fss.errors import FssError
from fss.files import remove_leftovers
from fss.reports.results import load_result

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fss.data.datamodule import FewShotDataModule
    from fss.data.source import SegmentationSource
    from fss.lit.episodic import EpisodicModule

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> float:
    """Train and test what the configuration describes, unless it is done already.

    Args:
        cfg: composed configuration.

    Returns:
        Novel-class mIoU in percent (what a Hydra sweeper maximises).
    """
    config = plain(cfg)
    check(config)
    job = Job(config, Path(HydraConfig.get().runtime.output_dir), slug(config))
    done = finished(job)
    if done is not None:
        log.info("Already finished with mIoU %.2f: %s (overwrite=true runs it again)", done, job.folder)
        return done
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from fss.cli.instantiate import build_source

    try:
        source = build_source(config["data"])
        for split in ("train", "val"):
            source.check(split)
        with ending_on_signals():
            return _train_and_test(job, source)
    except (FssError, OSError):
        tidy(job.folder)
        raise


def finished(job: Job) -> float | None:
    """Look for a finished run of the same identity.

    Args:
        job: the run.

    Returns:
        Its mIoU in percent, or None if it must run.
    """
    path = job.folder / "result.json"
    if not path.is_file():
        return None
    if job.config["overwrite"]:
        path.unlink()
        (job.folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
        return None
    result = load_result(path)
    return result.scores.miou if result.identity == identity(job.config) else None


def _train_and_test(job: Job, source: SegmentationSource) -> float:
    import pytorch_lightning as pl

    from fss.cli.build import build_data, build_model, build_recipe, build_strategy
    from fss.cli.loggers import build_loggers
    from fss.cli.quiet import hush
    from fss.lit.callbacks.backbone import BackboneFinetune
    from fss.lit.episodic import EpisodicModule

    hush()
    config = job.config
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        remove_leftovers(job.folder)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = build_data(config, source)
    data.setup("fit")  # a data set that is too small fails before the model is built
    module = EpisodicModule(
        build_model(config),
        build_recipe(config["recipe"]),
        train_classes=list(data.base_classes.values()),
        val_classes=list(data.val_classes.values()),
        test_classes=list(data.novel_classes.values()),
        card=card(job),
    )
    finetune = BackboneFinetune(build_strategy(config["finetune"]))
    resumed = interrupted(job)
    loggers = build_loggers(config["logger"], job.folder, job.name, config, resumed)
    trainer = build_trainer(job, finetune, facts(config), logger=loggers, more=checkpointing(job))
    _fit(trainer, module, data, resumed)
    return _test(job, trainer, module, data)


def _fit(trainer: pl.Trainer, module: EpisodicModule, data: FewShotDataModule, resumed: Interrupted | None) -> None:
    """Train, from the checkpoint of an interrupted identical run; end the process if a signal says so."""
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


def _test(job: Job, trainer: pl.Trainer, module: EpisodicModule, data: FewShotDataModule) -> float:
    best = "last" if job.config["selection"] == "last" else "best"
    checkpoint = job.folder / "checkpoints" / f"{best}.ckpt"
    found = str(checkpoint) if checkpoint.is_file() else None  # nothing is saved when no step was taken
    trainer.test(module, datamodule=data, ckpt_path=found, verbose=False, weights_only=True)
    if trainer.is_global_zero:
        show(job.folder)
    return 100 * module.test_scores.miou


def show(folder: Path) -> None:
    """Print a run's scores.

    Args:
        folder: the run's folder.
    """
    from rich.console import Console

    from fss.reports.tables import strategy_table

    Console().print(strategy_table([load_result(folder / "result.json")]))
    log.info("Result: %s", folder / "result.json")


def card(job: Job) -> dict[str, Any]:
    """Return the plain facts that checkpoints carry; the model can be rebuilt from them."""
    return {
        "format": 1,
        "config": job.config,
        "determining": determining(job.config),
        "identity": identity(job.config),
    }
