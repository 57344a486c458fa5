"""Train and test one run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fss.config.base_learner import NAME, with_base_learner
from fss.config.checks import check
from fss.config.compose import plain
from fss.config.identity import slug
from fss.errors import FssError
from fss.files import remove_leftovers
from fss.runs.attempts import attempt
from fss.runs.cleanup import remove_if_unused
from fss.runs.facts import facts
from fss.runs.fit_and_test import fit, test
from fss.runs.job import Job, card
from fss.runs.resume import interrupted
from fss.runs.signals import ending_on_signals
from fss.runs.trainer import build_trainer, checkpointing

if TYPE_CHECKING:
    from fss.data.sources.base import SegmentationSource


def run(cfg: DictConfig) -> float:
    """Train and test what the configuration describes, unless it is done already.

    Args:
        cfg: composed configuration.

    Returns:
        Novel-class mIoU in percent (what a Hydra sweeper maximises); NaN for a run of a sweep that failed.
    """
    config = with_base_learner(plain(cfg))
    check(config)
    hydra = HydraConfig.get()
    job = Job(config, Path(hydra.runtime.output_dir), slug(config))
    return attempt(job, _run, hydra.mode is RunMode.MULTIRUN, str(hydra.runtime.choices["hydra/launcher"]))


def _run(job: Job) -> float:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from fss.config.source import build_source

    try:
        source = build_source(job.config["data"])
        for split in ("train", "val"):
            source.check(split)
        with ending_on_signals():
            if job.config["method"]["name"] == NAME:
                from fss.runs.base_learner import train_base_learner

                return train_base_learner(job, source)
            return _train_and_test(job, source)
    except (FssError, OSError):
        remove_if_unused(job.folder)
        raise


def _train_and_test(job: Job, source: SegmentationSource) -> float:
    import pytorch_lightning as pl

    from fss.lit.callbacks.finetuning import BackboneFinetune
    from fss.lit.episodic import EpisodicModule
    from fss.model.build import build_model, build_strategy
    from fss.runs.base_learner import built_from, obtain
    from fss.runs.build import build_data, build_recipe
    from fss.runs.library_notices import hide_library_notices
    from fss.tracking.loggers import build_loggers, recorders

    hide_library_notices()
    config = job.config
    classes = len(source.fold(config["fold"]).base) + 1
    data = build_data(config, source)
    data.setup()  # a data set that is too small for training or test fails before anything is trained
    learner = obtain(job)  # before the seed is set: training it first must not change what follows
    if learner is not None and NAME in config["method"]:
        config["method"][NAME]["built"] = built_from(learner, classes)
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        remove_leftovers(job.folder)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    module = EpisodicModule(
        build_model(config, learner=None if learner is None else learner.state),
        build_recipe(config["recipe"]),
        train_classes=list(data.base_classes.values()),
        val_classes=list(data.val_classes.values()),
        test_classes=list(data.novel_classes.values()),
        card=card(job),
        base_classes=classes - 1,
    )
    finetune = BackboneFinetune(build_strategy(config["finetune"]))
    resumed = interrupted(job)
    loggers = build_loggers(config["logger"], job.folder, job.name, config, resumed)
    more = [*recorders(loggers, job.name, learner), *checkpointing(job)]
    trainer = build_trainer(job, finetune, facts(config), logger=loggers, more=more)
    fit(trainer, module, data, resumed)
    return test(job, trainer, module, data)
