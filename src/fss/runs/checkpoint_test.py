"""Test the model of a checkpoint: one novel class at a time, or base and novel classes at once."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from fss.backbones.described import described
from fss.commands import noun
from fss.config.source import build_source
from fss.data.datamodule import FewShotDataModule
from fss.data.sources.folds import name_classes
from fss.data.sources.seen import lists_known, refuse_leaks, seen_classes
from fss.errors import FssError
from fss.files import remove_leftovers
from fss.finetune.base import Strategy
from fss.lit.callbacks.cost import CostMeter
from fss.lit.callbacks.feature_caching import FeatureCaching
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.result import ResultWriter, RunFacts
from fss.lit.episodic import EpisodicModule
from fss.lit.generalised import GeneralisedModule
from fss.model.checkpoint import Checkpoint
from fss.model.load import rebuild
from fss.model.segmenter import FewShotSegmenter
from fss.runs.build import build_data, build_recipe, check_images, feature_cache_mb, scoring
from fss.runs.fit_and_test import show
from fss.runs.job import Job
from fss.runs.known_warnings import hide_known_warnings
from fss.runs.processes.signals import ending_on_signals
from fss.runs.provenance import facts, of_backbone, too_small
from fss.runs.trainer import assemble, build_trainer


def unseen_alone(
    config: dict[str, Any], asked: dict[str, Any], checkpoint: Checkpoint
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Make sure that a test takes nothing for new that its checkpoint was trained on: neither classes nor images.

    Args:
        config: configuration of the test.
        asked: resolved configuration of eval.py.
        checkpoint: what is tested.

    Returns:
        ``left_out`` or ``seen``: names of novel classes that the training saw; and what the result must say.

    Raises:
        FssError: if there are such classes or images, and the options neither leave them out nor allow them.
    """
    source = build_source(config["data"])
    source.check("val", images=False)
    novel = name_classes(source.fold(config["fold"]).novel, source.class_names)
    if not checkpoint.trained_on:
        raise FssError(f"{checkpoint.path} does not say on which classes it was trained: train it again.")
    seen = list(seen_classes(novel, checkpoint.trained_on).values())
    found, notes = _told(seen, novel, config, asked["seen_classes"])
    if config["data"]["name"] == checkpoint.config["data"]["name"]:
        notes += refuse_leaks(source, asked["leaks"])
        if not lists_known(source):
            notes += ("the training's image list is not there: whether its images are tested is not known",)
    return found, notes


def _told(
    seen: list[str], novel: dict[int, str], config: dict[str, Any], rule: str
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Apply the rule to novel classes that the training saw."""
    if not seen:
        return {}, ()
    rest = [name for name in novel.values() if name not in seen]
    where = f"data={config['data']['name']} fold={config['fold']}"
    told = f"the checkpoint was trained on {', '.join(seen)} (by name, or a synonym), novel in {where}"
    if rule == "keep":
        return {"seen": seen}, (f"seen_classes=keep: {told}; they are scored as if they were new",)
    if rule == "drop" and rest:
        return {"left_out": seen}, (f"seen_classes=drop: {told}; {', '.join(rest)} alone are tested",)
    others = f"test {', '.join(rest)} alone with seen_classes=drop" if rest else "none is left, test another fold"
    raise FssError(
        f"{told[0].upper()}{told[1:]}: {others}, or test all of them with seen_classes=keep, which the result notes."
    )


def test_checkpoint(job: Job, checkpoint: Checkpoint) -> float:
    """Test a checkpoint and write the result.

    Args:
        job: the test; its configuration is that of :func:`fss.config.test_options.merged`.
        checkpoint: what is tested.

    Returns:
        mIoU in percent.
    """
    hide_known_warnings()
    config = job.config
    remove_leftovers(job.folder)
    source = build_source(config["data"])
    source.check("val")
    data = build_data(config, source, described(config["backbone"]).input)
    data.setup("test")
    pl.seed_everything(config["test_seed"], workers=True, verbose=False)
    model, strategy = rebuild(checkpoint)
    check_images(model.backbone, data.images)
    known = facts(
        config, f"tested by {noun('eval')} from {checkpoint.path.name} of run {checkpoint.identity[:12]}",
        checkpoint.config["shot"],
        (*job.notes, *too_small(config, data.left_out("test")), *of_backbone(config, model.backbone)),
    )  # fmt: skip
    make = _generalised if "task" in config else _episodic
    module, trainer = make(job, model, data, strategy, known)
    with ending_on_signals():
        trainer.test(module, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        show(job.folder)
    return 100 * float(module.test_scores.miou)


def _episodic(
    job: Job, model: FewShotSegmenter, data: FewShotDataModule, strategy: Strategy, known: RunFacts
) -> tuple[EpisodicModule, pl.Trainer]:

    novel = list(data.novel_classes.values())
    module = EpisodicModule(
        model, build_recipe(job.config["recipe"]), train_classes=novel, val_classes=novel, test_classes=novel,
        base_classes=len(data.streams.classes.base), left_out=data.left_out("test"),
        ignored=data.protocol.ignored, scoring=scoring(data),
    )  # fmt: skip
    return module, build_trainer(job, BackboneFinetune(strategy), known, data.images, logger=False)


def _generalised(
    job: Job, model: FewShotSegmenter, data: FewShotDataModule, strategy: Strategy, known: RunFacts
) -> tuple[GeneralisedModule, pl.Trainer]:

    base = name_classes(data.streams.classes.base, data.source.class_names)
    novel = data.novel_classes
    module = GeneralisedModule(
        model, list(base.values()), list(novel.values()), job.config["tau"], job.config["merge"],
        (data.left_out("test") or {}).get("test"), scoring(data),
    )  # fmt: skip
    finetune, cost = BackboneFinetune(strategy), CostMeter()
    caching = FeatureCaching(feature_cache_mb(job.config))
    callbacks = [finetune, cost, caching, ResultWriter(job.folder, known, finetune, cost)]
    return module, assemble(job, False, callbacks, enable_checkpointing=False)
