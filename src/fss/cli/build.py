"""From resolved configuration to objects; constructors receive plain values only."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate

from fss.backbones.staged import StagedModule
from fss.backbones.weights import load_into, resolve
from fss.cli.instantiate import Node, make
from fss.data.datamodule import FewShotDataModule
from fss.data.options import EpisodeOptions, IndexOptions, LoaderOptions, Selection, TransformOptions
from fss.data.source import SegmentationSource
from fss.finetune.base import Strategy
from fss.lit.optim import Recipe
from fss.methods.base import FewShotHead
from fss.methods.segmenter import FewShotSegmenter


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


def build_model(config: Node, pretrained: bool = True) -> FewShotSegmenter:
    """Build backbone and head, without fine-tune strategy.

    Args:
        config: the whole configuration.
        pretrained: load the backbone's weights.

    Returns:
        The model.
    """
    backbone = build_backbone(config["backbone"], pretrained)
    head = make("method", config["method"], channels=list(backbone.channels))
    assert isinstance(head, FewShotHead)
    return FewShotSegmenter(backbone, head)


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
        ),
        loader=LoaderOptions(
            batch_size=config["recipe"]["batch_size"],
            test_batch_size=config["test_batch_size"],
            workers=config["workers"],
        ),
    )


def _options(kind: type[Any], data: Node) -> Any:
    return kind(**{k: data[k] for k in kind.__dataclass_fields__ if k in data})
