"""The first stage of BAM: train a base learner, or find the one that a run asks for."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from fss.backbones.described import described
from fss.config.base_learner import NAME, NOTES, RUNS, base_learner_config, checkpoint_of, differences, find
from fss.config.base_learner_command import command
from fss.config.identity import slug
from fss.config.source import build_source
from fss.data.sources.base import SegmentationSource
from fss.errors import FssError
from fss.files import remove_leftovers
from fss.finetune.base import report_trainable
from fss.lit.base_learner import BaseLearnerModule
from fss.lit.callbacks.cost import CostMeter
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.result import ResultWriter
from fss.lit.callbacks.seeding import StepSeed
from fss.model.build import build_base_learner, build_strategy
from fss.model.checkpoint import Checkpoint, read_checkpoint
from fss.runs.attempts import once
from fss.runs.build import build_base_data, build_recipe, check_images
from fss.runs.fit_and_test import fit, test
from fss.runs.job import Job, card, finished
from fss.runs.known_warnings import hide_known_warnings
from fss.runs.provenance import facts, of_backbone
from fss.runs.resume import interrupted
from fss.runs.trainer import assemble, checkpointing
from fss.tracking.loggers import build_loggers, recorders
from fss.tracking.wandb_run import finish

log = logging.getLogger(__name__)


def train_base_learner(job: Job, source: SegmentationSource) -> float:
    """Train and test a base learner.

    Args:
        job: the run; ``method=base_learner``.
        source: the data set.

    Returns:
        mIoU over the base classes of the validation images, in percent.
    """
    config = job.config
    hide_known_warnings()
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        remove_leftovers(job.folder)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    images = described(config["backbone"]).input
    data = build_base_data(config, source, images)
    data.setup("fit")
    model = build_base_learner(config, len(data.base_classes) + 1)
    check_images(model.backbone, images)
    module = BaseLearnerModule(
        model,
        build_recipe(config["recipe"]),
        list(data.base_classes.values()),
        config["recipe"].get("index_split"),
        card(job, data.base_classes.values()),
    )
    resumed = interrupted(job)
    loggers = build_loggers(config["logger"], job.folder, job.name, config, resumed)
    callbacks = [*_callbacks(job, module), *recorders(loggers, job.name), *checkpointing(job)]
    trainer = assemble(job, loggers, callbacks)
    fit(trainer, module, data, resumed)
    return test(job, trainer, module, data)


def obtain(job: Job) -> Checkpoint | None:
    """Return the base learner that a run uses; train it first if there is none and the run may.

    Args:
        job: the run, its configuration settled by :func:`fss.config.base_learner.completed`.

    Returns:
        The checkpoint, or None for runs without a base learner.

    Raises:
        FssError: if it is missing, or of another data set, backbone or fold.
    """
    config = job.config
    node = config["method"].get(NAME)
    if node is not None:
        path = _of_method(job, node)
    elif config["backbone"]["weights"] == NAME:
        found = find(config, config["backbone"][NAME]["identity"])
        if found is None:
            raise FssError(f"The base learner of this run has gone from {RUNS}/. Train it again: {command(config)}")
        path = found.checkpoint
    else:
        return None
    module = str(config["backbone"]["_target_"]).rpartition(".")[0]  # this run imports it, too
    checkpoint = read_checkpoint(path, () if module.startswith("fss.") else (module,))
    wrong = differences(checkpoint.config, config)
    if wrong:
        raise FssError(
            f"The base learner {path} does not fit this run: {'; '.join(wrong)}. Give one of this data set, backbone "
            f"and fold, or train it: {command(config)}"
        )
    log.info("Base learner: %s", path)
    return checkpoint


def unfinished(learner: Checkpoint | None) -> tuple[str, ...]:
    """Return what a result must say of a base learner whose run has no result beside it: it may be half trained.

    Args:
        learner: its checkpoint, or None for runs without one.
    """
    if learner is None or learner.released or (learner.path.parent.parent / "result.json").is_file():
        return ()
    return (
        f"the base learner {learner.path.name} has no result.json in the folder above: whether its training ended is "
        "not known",
    )


def built_from(learner: Checkpoint, classes: int) -> dict[str, Any]:
    """Return what of a base learner's configuration rebuilds it as part of another model.

    Args:
        learner: its checkpoint.
        classes: number of base classes of the data set and the background.

    Returns:
        Plain values for ``method.base_learner.built``.

    Raises:
        FssError: if it was trained on another number of classes.
    """
    own = len(learner.state["head.cls.4.bias"])
    if own != classes:
        raise FssError(
            f"The base learner {learner.path} tells {own} classes apart, this data set has {classes} with the "
            "background: it was trained on other data. Give one of this data set, or leave "
            "method.base_learner.checkpoint out."
        )
    return {
        "classes": classes,
        "method": learner.config["method"],
        "backbone": learner.config["backbone"],
        "checkpoint": str(learner.path),
        "identity": learner.identity,
    }


def _of_method(job: Job, node: dict[str, Any]) -> Path:
    if node["checkpoint"] is not None:
        return Path(node["checkpoint"]).expanduser()
    found = find(job.config, node["identity"])
    return _train_first(job) if found is None else found.checkpoint


def _train_first(job: Job) -> Path:

    config = base_learner_config(job.config)
    name = slug(config)
    first = Job(config, RUNS / config["group"] / name, name)
    log.info("There is no base learner for this data set, backbone and fold: training it first, in %s", first.folder)
    log.info("(by hand: %s; method.base_learner.train_if_missing=false stops instead)", command(job.config))
    once(first, lambda job: train_base_learner(job, build_source(job.config["data"])))
    log.info("The base learner is ready: mIoU %.2f over the base classes. Now %s.", finished(first), job.name)
    finish()  # the second stage is a run of its own at W&B, too
    return checkpoint_of(first.folder, config["selection"])


def _callbacks(job: Job, module: BaseLearnerModule) -> list[pl.Callback]:
    config, cost = job.config, CostMeter()
    everything = BackboneFinetune(build_strategy(config["finetune"]))  # only reports: nothing is frozen or swapped
    everything.report = report_trainable(config["finetune"]["name"], module.model.backbone, [])
    notes = (*job.notes, *of_backbone(config, module.model.backbone))
    known = facts(config, NOTES[config["selection"]], notes=notes)
    return [StepSeed(config["seed"]), cost, ResultWriter(job.folder, known, everything, cost)]
