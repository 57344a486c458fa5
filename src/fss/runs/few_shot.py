"""Train and test a few-shot head on episodes."""

from __future__ import annotations

import os

import pytorch_lightning as pl
import torch

from fss.backbones.described import described
from fss.config.base_learner import NAME, find
from fss.data.sources.base import SegmentationSource
from fss.files import remove_leftovers
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.episodic import EpisodicModule
from fss.lit.optim import freeze_untrained
from fss.model.build import build_backbone, build_head, build_model, build_strategy
from fss.runs.base_learner import built_from, obtain, unfinished
from fss.runs.build import build_data, build_recipe, check_images, scoring
from fss.runs.fit_and_test import fit, test
from fss.runs.job import Job, card
from fss.runs.known_warnings import hide_known_warnings
from fss.runs.provenance import facts, of_backbone, too_small
from fss.runs.resume import interrupted
from fss.runs.shared_memory import check_shared_memory
from fss.runs.trainer import assemble, build_trainer, checkpointing
from fss.tracking.loggers import build_loggers, recorders


def train_few_shot(job: Job, source: SegmentationSource) -> float:
    """Train a head on episodes of base classes and test it on novel ones.

    Args:
        job: the run; any method but ``base_learner``.
        source: the data set.

    Returns:
        mIoU over the novel classes, in percent.
    """
    hide_known_warnings()
    config = job.config
    classes = len(source.fold(config["fold"]).base) + 1
    check_shared_memory(config["recipe"]["batch_size"], config["shot"], config["data"]["size"], config["workers"])
    images = described(config["backbone"]).input
    data = build_data(config, source, images)
    data.setup()  # a data set that is too small for training or test fails before anything is trained
    left_out = data.left_out("val", "test")
    notes = (*job.notes, *too_small(config, left_out))
    _refuse_what_fails_later(job)
    learner = obtain(job)  # before the seed is set: training it first must not change what follows
    if learner is not None and NAME in config["method"]:
        config["method"][NAME]["built"] = built_from(learner, classes)
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        remove_leftovers(job.folder)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    model = build_model(config, learner=None if learner is None else learner.state)
    check_images(model.backbone, images)
    module = EpisodicModule(
        model,
        build_recipe(config["recipe"]),
        train_classes=list(data.base_classes.values()),
        val_classes=list(data.val_classes.values()),
        test_classes=list(data.novel_classes.values()),
        card=card(job, data.base_classes.values()),
        base_classes=classes - 1,
        left_out=left_out,
        ignored=data.protocol.ignored,
        scoring=scoring(data),
    )
    finetune = BackboneFinetune(build_strategy(config["finetune"]))
    resumed = interrupted(job)
    loggers = build_loggers(config["logger"], job.folder, job.name, config, resumed)
    more = [*recorders(loggers, job.name, learner), *checkpointing(job)]
    known = facts(config, notes=(*notes, *unfinished(learner), *of_backbone(config, model.backbone)))
    trainer = build_trainer(job, finetune, known, images, logger=loggers, more=more)
    fit(trainer, module, data, resumed)
    return test(job, trainer, module, data)


def _refuse_what_fails_later(job: Job) -> None:
    """Build what the options describe, without values, if hours of another training come before it is needed."""
    config, node = job.config, job.config["method"].get(NAME)
    if node is None or node["checkpoint"] is not None or find(config, node["identity"]) is not None:
        return
    recipe = build_recipe(config["recipe"])
    with torch.device("meta"):
        backbone = build_backbone(config["backbone"], pretrained=False)
        head = build_head(config["method"], backbone)
        freeze_untrained(head, recipe.untrained)
        build_strategy(config["finetune"]).apply(backbone)
    assemble(job, False, [], enable_checkpointing=False)
