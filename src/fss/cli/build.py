"""From resolved configuration to objects; constructors receive plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate
from torch import Tensor

from fss.backbones.staged import StagedModule
from fss.backbones.weights import load_into, resolve
from fss.cli.instantiate import Node, make
from fss.data.base_datamodule import BaseDataModule
from fss.data.datamodule import FewShotDataModule
from fss.data.folds import COCO_CLASSES, PASCAL_CLASSES
from fss.data.options import EpisodeOptions, IndexOptions, LoaderOptions, Selection, TransformOptions
from fss.data.source import SegmentationSource
from fss.finetune.base import Strategy
from fss.lit.optim import Recipe
from fss.methods.base import FewShotHead
from fss.methods.base_learner import BaseLearner, ManyWaySegmenter
from fss.methods.companion import BaseBranch
from fss.methods.segmenter import FewShotSegmenter

RELEASED_CLASSES = {name: len(ids) * 3 // 4 + 1 for name, ids in (("pascal", PASCAL_CLASSES), ("coco", COCO_CLASSES))}
"""Three of four folds and the background."""
TEST_CACHE_MB = 4096
"""Default of ``test_cache_mb``."""


def build_backbone(node: Node, pretrained: bool = True) -> StagedModule:
    """Build a backbone.

    Args:
        node: the backbone group.
        pretrained: load the weights that it names.

    Returns:
        The backbone.

    Raises:
        FssError: if options or weights are wrong or missing.
    """
    path = resolve(node["weights"], node["name"], node.get("stem", "")) if pretrained else None
    backbone = make("backbone", node)
    assert isinstance(backbone, StagedModule)
    if path is not None:
        load_into(backbone, path)
    return backbone


def build_model(config: Node, pretrained: bool = True, learner: Mapping[str, Tensor] | None = None) -> FewShotSegmenter:
    """Build backbone and head, without fine-tune strategy, and the base branch if the head wants one.

    Args:
        config: the whole configuration.
        pretrained: load the backbone's weights.
        learner: values of a base learner: of the base branch, and of the backbone in place of its weights.

    Returns:
        The model.
    """
    backbone = build_backbone(config["backbone"], pretrained and learner is None)
    head = make("method", config["method"], channels=list(backbone.channels))
    assert isinstance(head, FewShotHead)
    companion = build_companion(config) if BaseBranch.provides in head.spec.extras else None
    if learner is not None:
        own = {k.removeprefix("backbone."): v for k, v in learner.items() if k.startswith("backbone.")}
        backbone.load_state_dict(own, strict=True)
        if companion is not None:
            companion.load_state_dict(dict(learner), strict=True)
    return FewShotSegmenter(backbone, head, companion)


def build_companion(config: Node) -> BaseBranch:
    """Build the frozen base branch of a model, without its values.

    Args:
        config: the whole configuration; ``method.base_learner.built`` describes the base learner. Without it, as in a
            checkpoint of a release, it is the released one.

    Returns:
        The base branch.
    """
    node = config["method"].get("base_learner", {})
    built = node.get("built") or {
        "classes": RELEASED_CLASSES[config["data"]["name"]],
        "method": {"_target_": "fss.methods.base_learner.BaseLearner"},
        "backbone": config["backbone"],
    }
    backbone = build_backbone(built["backbone"], pretrained=False)
    head = make("method", built["method"], channels=list(backbone.channels), classes=built["classes"])
    assert isinstance(head, BaseLearner)
    return BaseBranch(backbone, head, node.get("dropout", True))


def build_base_learner(config: Node, classes: int) -> ManyWaySegmenter:
    """Build the model of ``method=base_learner``.

    Args:
        config: the whole configuration.
        classes: base classes and the background.

    Returns:
        The model, its backbone with the weights that the configuration names.
    """
    backbone = build_backbone(config["backbone"])
    head = make("method", config["method"], channels=list(backbone.channels), classes=classes)
    assert isinstance(head, BaseLearner)
    return ManyWaySegmenter(backbone, head)


def build_strategy(node: Node) -> Strategy:
    """Build a fine-tune strategy from its group."""
    strategy = make("finetune", node)
    assert isinstance(strategy, Strategy)
    return strategy


def build_recipe(node: Node) -> Recipe:
    """Build a recipe from its group."""
    return Recipe(
        optimizer=instantiate(node["optimizer"]),
        schedule=instantiate(node["schedule"]),
        backbone_lr_factor=node["backbone_lr_factor"],
        untrained=tuple(node["untrained"]),
    )


def build_data(config: Node, source: SegmentationSource, test_shot: int | None = None) -> FewShotDataModule:
    """Build the data module.

    Args:
        config: the whole configuration.
        source: the data set.
        test_shot: supports in the test, if other than in training.

    Returns:
        The data module.
    """
    data = config["data"]
    selection: Selection = "base" if config["selection"] == "base" else "novel"
    return FewShotDataModule(
        source,
        fold=config["fold"],
        shot=config["shot"],
        seed=config["seed"],
        transforms=_options(TransformOptions, data),
        index=_options(IndexOptions, data),
        episodes=EpisodeOptions(
            selection=selection,
            test_episodes=data["test_episodes"],
            val_episodes=data["val_episodes"],
            test_shot=data["test_shot"] if test_shot is None else test_shot,
            test_seed=config["test_seed"],
            replay=data["episodes"],
            sampler=data.get("sampler", "stateless"),  # checkpoints from before the option lack it
            base_labels=config["method"].get("wants", {}).get("base_labels", False),
            task=config.get("task", "episodes"),
        ),
        loader=_loading(config),
    )


def build_base_data(config: Node, source: SegmentationSource) -> BaseDataModule:
    """Build the data module of ``method=base_learner``.

    Args:
        config: the whole configuration.
        source: the data set.

    Returns:
        The data module.
    """
    return BaseDataModule(
        source, config["fold"], config["seed"], _options(TransformOptions, config["data"]), _loading(config)
    )


def remembered(config: Node) -> int:
    """Return the limit of feature maps remembered while testing, in MiB; checkpoints from before the option lack it.

    Args:
        config: the whole configuration.
    """
    return int(config.get("test_cache_mb", TEST_CACHE_MB))


def _loading(config: Node) -> LoaderOptions:
    return LoaderOptions(
        config["recipe"]["batch_size"], config["test_batch_size"], config["workers"], by_picture=remembered(config) > 0
    )


def _options(kind: type[Any], data: Node) -> Any:
    return kind(**{k: data[k] for k in kind.__dataclass_fields__ if k in data})
