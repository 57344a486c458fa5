"""Test a checkpoint: on its fold, with any shot, on any episodes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fss.config.checks import check
from fss.config.compose import plain
from fss.config.identity import identity
from fss.config.value_ranges import number
from fss.errors import FssError
from fss.files import remove_leftovers
from fss.runs.cleanup import remove_if_unused
from fss.runs.job import Job
from fss.runs.signals import ending_on_signals
from fss.runs.summary import show

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fss.data.datamodule import FewShotDataModule
    from fss.finetune.base import Strategy
    from fss.lit.callbacks.result import RunFacts
    from fss.lit.episodic import EpisodicModule
    from fss.lit.generalised import GeneralisedModule
    from fss.model.checkpoint import Checkpoint
    from fss.model.segmenter import FewShotSegmenter

log = logging.getLogger(__name__)

TASKS = ("episodes", "generalised")
MERGES = ("final", "base")


def run(cfg: DictConfig) -> float:
    """Test what the configuration names.

    Args:
        cfg: composed configuration of eval.py.

    Returns:
        mIoU in percent.

    Raises:
        FssError: if the checkpoint or an option is wrong.
    """
    try:
        return _run(plain(cfg))
    except (FssError, OSError):
        remove_if_unused(Path(HydraConfig.get().runtime.output_dir))
        raise


def _run(asked: dict[str, Any]) -> float:
    if asked["ckpt"] == "???":
        raise FssError(
            "Say which checkpoint to test: python eval.py ckpt=multirun/<group>/<run>/checkpoints/best.ckpt "
            "(python eval.py --help shows the other options)."
        )
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from fss.model.checkpoint import read_checkpoint, refuse_strangers

    trusted = trusted_names(asked["trusted"])
    checkpoint = read_checkpoint(asked["ckpt"], trusted)
    theirs = ("recipe", "trainer") if asked.get("data") else ("data", "recipe", "trainer")
    refuse_strangers(checkpoint.path, [checkpoint.config[group] for group in theirs], trusted)
    config = merged(asked, checkpoint.config)
    check(config)
    if "task" in config:
        _check_generalised(config, checkpoint)
    name = test_name(config)
    folder = Path(asked["out"] or checkpoint.path.parent.parent / name)
    if asked["out"] and HydraConfig.get().mode is RunMode.MULTIRUN:
        folder /= name  # one folder for all would keep the last test only
    return _test(Job(config, folder, name), checkpoint)


def trusted_names(given: Any) -> list[str]:
    """Check the packages, besides fss, whose classes a checkpoint may name.

    Args:
        given: a list of names, or one.

    Returns:
        The list.

    Raises:
        FssError: if it is anything else.
    """
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip(".") for n in names):
        raise FssError(f"trusted={given} is not allowed: give names of Python packages, e.g. trusted=[my_package].")
    return names


def test_name(config: dict[str, Any]) -> str:
    """Name a test: readable parts, then six digits of its identity.

    Args:
        config: configuration of the test.

    Returns:
        The name of its folder, another one for every seed, shot, fold and rule.
    """
    task = f"{config['task']}-" if "task" in config else ""
    what = f"{task}{config['shot']}shot-{config['data']['name']}{config['fold']}-s{config['test_seed']}"
    return f"eval-{what}-{identity(config)[:6]}"


def merged(asked: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """Replace settings of the training by what was asked for the test.

    Args:
        asked: resolved configuration of eval.py.
        trained: configuration of the run.

    Returns:
        The configuration of the test.

    Raises:
        FssError: if the fold differs and ``cross_fold`` is not set, both a list and a rule to draw are given, or the
            task or one of its options is not known.
    """
    _check_task(asked)
    config = {
        **trained,
        "trainer": {**trained["trainer"], **_hardware(asked["trainer"])},
        "images": asked["previews"],
    }
    config.update({k: asked[k] for k in ("workers", "test_batch_size", "feature_cache_mb") if asked[k] is not None})
    config["data"] = dict(asked.get("data") or trained["data"])
    if asked["fold"] is not None and asked["fold"] != trained["fold"] and not asked["cross_fold"]:
        raise FssError(
            f"fold={asked['fold']} was asked, but the checkpoint was trained on fold {trained['fold']}: its training "
            "saw classes that this test calls novel. Leave fold out, or add cross_fold=true if you mean it."
        )
    for name, target in (("fold", "fold"), ("shot", "shot"), ("seed", "test_seed")):
        if asked[name] is not None:
            config[target] = asked[name]
    config["data"].update(_episodes(asked))
    if asked["task"] != TASKS[0]:  # else the configuration stays as before there were tasks, and so do folders
        config |= {"task": asked["task"], "tau": asked["tau"], "merge": asked["merge"]}
    if _is_foreign(config, trained):
        config["method"] = _without_base_labels(config)
    if asked["root"] is not None:
        config["data"]["root"] = asked["root"]
        config["data"]["source"] = {**config["data"]["source"], "root": asked["root"]}
    return config


def _is_foreign(config: dict[str, Any], trained: dict[str, Any]) -> bool:
    """Tell whether the test has other base classes than the training."""
    return any(
        (config["fold"], config["data"].get(key)) != (trained["fold"], trained["data"].get(key))
        for key in ("name", "scheme")
    )


def _without_base_labels(config: dict[str, Any]) -> dict[str, Any]:
    """Return the method's settings for a test whose base classes its base learner does not know."""
    if "task" in config:
        raise FssError(
            "task=generalised scores the base classes of the training, which another fold or data set does not have: "
            "leave fold and data out."
        )
    method = dict(config["method"])
    return {**method, "wants": {**method.get("wants", {}), "base_labels": False}}


def _episodes(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the data set that what was asked replaces."""
    if asked["episodes"] is not None and asked["sampler"] is not None:
        raise FssError(
            f"episodes={asked['episodes']} and sampler={asked['sampler']} exclude each other: the episodes of a list "
            "are drawn already. Leave one of them out."
        )
    names = ("episodes", "test_episodes", "sampler")
    changes = {name: asked[name] for name in names if asked[name] is not None}
    if asked["seed"] is not None or asked["sampler"] is not None:
        changes.setdefault("episodes", None)  # the list of the training would win over what was asked
    if asked["shot"] is not None:
        changes["test_shot"] = None  # likewise
    return changes


def _hardware(trainer: dict[str, Any]) -> dict[str, Any]:
    names = (
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "precision",
        "enable_progress_bar",
        "limit_test_batches",
    )
    return {k: trainer[k] for k in names}


def _check_task(asked: dict[str, Any]) -> None:
    for name, allowed in (("task", TASKS), ("merge", MERGES)):
        if asked[name] not in allowed:
            raise FssError(f"{name}={asked[name]} is not known: choose one of {', '.join(allowed)}.")
    number("tau", asked["tau"], 0.0, 1.0)
    if asked["task"] == "generalised" and (asked["episodes"] is not None or asked["sampler"] is not None):
        raise FssError(
            "task=generalised draws its episodes by a rule of its own, over all validation images: leave "
            "episodes and sampler out."
        )


def _check_generalised(config: dict[str, Any], checkpoint: Checkpoint) -> None:
    if not any(name.startswith("companion.") for name in checkpoint.state):
        raise FssError(
            f"task=generalised needs a base learner beside the head; {checkpoint.path} of "
            f"method={config['method']['name']} has none. Give a checkpoint of method=bam: python train.py method=bam"
        )


def _test(job: Job, checkpoint: Checkpoint) -> float:
    import pytorch_lightning as pl

    from fss.config.source import build_source
    from fss.model.load import rebuild
    from fss.runs.build import build_data
    from fss.runs.facts import facts
    from fss.runs.library_notices import hide_library_notices

    hide_library_notices()
    config = job.config
    remove_leftovers(job.folder)
    source = build_source(config["data"])
    source.check("val")
    data = build_data(config, source)
    data.setup("test")
    pl.seed_everything(config["test_seed"], workers=True, verbose=False)
    model, strategy = rebuild(checkpoint)
    known = facts(
        config, f"tested by eval.py from {checkpoint.path.name} of run {checkpoint.identity[:12]}",
        checkpoint.config["shot"],
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
    from fss.lit.callbacks.finetuning import BackboneFinetune
    from fss.lit.episodic import EpisodicModule
    from fss.runs.build import build_recipe
    from fss.runs.trainer import build_trainer

    novel = list(data.novel_classes.values())
    module = EpisodicModule(
        model, build_recipe(job.config["recipe"]), train_classes=novel, val_classes=novel, test_classes=novel,
        base_classes=len(data.streams.classes.base),
    )  # fmt: skip
    return module, build_trainer(job, BackboneFinetune(strategy), known, logger=False)


def _generalised(
    job: Job, model: FewShotSegmenter, data: FewShotDataModule, strategy: Strategy, known: RunFacts
) -> tuple[GeneralisedModule, pl.Trainer]:
    from fss.data.sources.folds import name_classes
    from fss.lit.callbacks.cost import CostMeter
    from fss.lit.callbacks.feature_caching import FeatureCaching
    from fss.lit.callbacks.finetuning import BackboneFinetune
    from fss.lit.callbacks.result import ResultWriter
    from fss.lit.generalised import GeneralisedModule
    from fss.runs.build import feature_cache_mb
    from fss.runs.trainer import assemble

    base = name_classes(data.streams.classes.base, data.source.class_names)
    novel = data.novel_classes
    module = GeneralisedModule(model, list(base.values()), list(novel.values()), job.config["tau"], job.config["merge"])
    finetune, cost = BackboneFinetune(strategy), CostMeter()
    caching = FeatureCaching(feature_cache_mb(job.config))
    callbacks = [finetune, cost, caching, ResultWriter(job.folder, known, finetune, cost)]
    return module, assemble(job, False, callbacks, enable_checkpointing=False)
