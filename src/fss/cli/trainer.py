"""What training and testing share: the job, its facts, the Lightning trainer with our callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss.cli.edge import identity

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import Logger

    from fss.lit.callbacks.backbone import BackboneFinetune
    from fss.lit.callbacks.result import RunFacts

SELECTION_NOTES = {
    "novel": "the tested checkpoint is the best on these very test episodes (the field's convention): optimistic",
    "base": "the tested checkpoint is the best on held-out base-class episodes: no novel class was looked at",
    "last": "the weights after the last epoch were tested: nothing was selected",
}


@dataclass
class Job:
    """One run.

    Attributes:
        config: resolved configuration.
        folder: where everything of the run goes.
        name: its slug.
    """

    config: dict[str, Any]
    folder: Path
    name: str


def facts(config: dict[str, Any], note: str | None = None) -> RunFacts:
    """Collect what is known of a run before it starts.

    Args:
        config: resolved configuration.
        note: how the tested checkpoint was chosen; None says it from ``selection``.

    Returns:
        The facts for the result file.
    """
    from fss.cli.provenance import commit, versions
    from fss.lit.callbacks.result import RunFacts

    rule = config["selection"]
    key = {group: config[group]["name"] for group in ("data", "method", "backbone", "finetune", "recipe")}
    key |= {"fold": config["fold"], "shot": config["shot"], "seed": config["seed"], "experiment": config["group"]}
    selection = {"rule": rule, "note": note or SELECTION_NOTES[rule]}
    return RunFacts(identity(config), key, selection, config, versions(), commit())


def checkpointing(job: Job) -> pl.Callback:
    """Return the callback that keeps the best and the last checkpoint by the run's selection rule.

    Args:
        job: the run.

    Returns:
        A ``ModelCheckpoint``; with ``selection=last`` it keeps the last one only.
    """
    from pytorch_lightning.callbacks import ModelCheckpoint

    last = job.config["selection"] == "last"
    return ModelCheckpoint(
        dirpath=job.folder / "checkpoints",
        filename="best",
        monitor=None if last else "val/miou",
        mode="max",
        save_top_k=0 if last else 1,
        save_last=True,
        save_on_train_epoch_end=last,
        enable_version_counter=False,
    )


def build_trainer(
    job: Job,
    finetune: BackboneFinetune,
    known: RunFacts,
    logger: Sequence[Logger] | bool,
    more: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Build Lightning's trainer with the callbacks of every run.

    Args:
        job: the run.
        finetune: injects the strategy.
        known: facts for the result file.
        logger: loggers, or False for none.
        more: further callbacks.

    Returns:
        The trainer.
    """
    import pytorch_lightning as pl

    from fss.backbones.weights import IMAGENET_MEAN, IMAGENET_STD
    from fss.cli.instantiate import make
    from fss.lit.callbacks.cost import CostMeter
    from fss.lit.callbacks.pictures import PictureRecorder
    from fss.lit.callbacks.result import ResultWriter

    config = job.config
    options = dict(config["trainer"])
    if config["selection"] == "last":
        options["limit_val_batches"] = 0
    cost = CostMeter()
    pictures = PictureRecorder(job.folder, config["pictures"], IMAGENET_MEAN, IMAGENET_STD)
    trainer = make(
        "trainer",
        options,
        default_root_dir=str(job.folder),
        logger=logger,
        callbacks=[finetune, cost, pictures, ResultWriter(job.folder, known, finetune, cost), *more],
        enable_checkpointing=bool(more),
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
    assert isinstance(trainer, pl.Trainer)
    return trainer
