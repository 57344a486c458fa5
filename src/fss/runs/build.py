"""Data modules and recipe of a run, from its resolved configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from fss.commands import program
from fss.config.value_ranges import episode_protocol
from fss.data.base_datamodule import BaseDataModule
from fss.data.datamodule import FewShotDataModule
from fss.data.episodes.options import EpisodeOptions, IndexOptions, Selection
from fss.data.options import LoaderOptions, TransformOptions
from fss.data.sources.base import SegmentationSource
from fss.errors import FssError
from fss.instantiate import Node, partial
from fss.lit.optim import Optimisation, Recipe
from fss.metrics.geometry import Scoring
from fss.types import ImageBackbone, InputSpec

FEATURE_CACHE_MB = 4096
"""Default of ``feature_cache_mb``."""


def build_recipe(node: Node) -> Recipe:
    """Build a recipe from its group.

    Args:
        node: the group.

    Raises:
        FssError: if optimiser or schedule are of another kind, or refuse their arguments.
    """
    further = node.get("optimizers") or {}  # checkpoints from before the option lack it
    for name, one in further.items():
        if not isinstance(one, Mapping) or one.keys() != {"optimizer", "schedule"}:
            raise FssError(
                f"recipe.optimizers.{name}={one} is not allowed: give optimizer and schedule, as those of the recipe."
            )
    main = _optimisation("recipe", node)
    return Recipe(
        optimizer=main.optimizer,
        schedule=main.schedule,
        backbone_lr_factor=node["backbone_lr_factor"],
        untrained=tuple(node["untrained"]),
        further={name: _optimisation(f"recipe.optimizers.{name}", one) for name, one in further.items()},
    )


def _optimisation(group: str, node: Node) -> Optimisation:
    optimizer = partial(f"{group}.optimizer", node["optimizer"], _is_optimizer)
    schedule = partial(f"{group}.schedule", node["schedule"], _is_schedule)
    for name, attempt in (
        ("optimizer", lambda: optimizer([nn.Parameter(torch.zeros(1))])),
        ("schedule", lambda: schedule(0.5)),
    ):
        _tried(f"{group}.{name}", node[name], attempt)
    return Optimisation(optimizer, schedule)


def build_data(
    config: Node, source: SegmentationSource, images: InputSpec, test_shot: int | None = None
) -> FewShotDataModule:
    """Build the data module.

    Args:
        config: the whole configuration.
        source: the data set.
        images: normalisation and sides of the backbone.
        test_shot: supports in the test, if other than in training.

    Returns:
        The data module.
    """
    data = config["data"]
    selection: Selection = "base" if config["selection"] == "base" else "novel"
    return FewShotDataModule(
        source,
        images,
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
            padding=config["method"].get("wants", {}).get("padding", False),
            task=config.get("task", "episodes"),
            left_out=tuple(config.get("tested", {}).get("left_out", ())),
            min_test_images=data.get("min_test_images"),  # likewise
        ),
        loader=_loading(config),
        protocol=episode_protocol(config),
    )


def scoring(data: FewShotDataModule) -> Scoring:
    """Return where predictions are scored.

    Args:
        data: has the protocol and its transforms.
    """
    return Scoring(data.protocol.scoring, data.test_transform.fit)


def build_base_data(config: Node, source: SegmentationSource, images: InputSpec) -> BaseDataModule:
    """Build the data module of ``method=base_learner``.

    Args:
        config: the whole configuration.
        source: the data set.
        images: normalisation and sides of the backbone.

    Returns:
        The data module.
    """
    return BaseDataModule(
        source, images, config["fold"], config["seed"], _options(TransformOptions, config["data"]), _loading(config)
    )


def check_images(backbone: ImageBackbone, images: InputSpec) -> None:
    """Make sure that a model gets the images that its backbone expects.

    Args:
        backbone: of the model.
        images: normalisation and sides that the data module was built for, from the backbone without its weights.

    Raises:
        FssError: if they differ, which is a defect of the backbone's class.
    """
    if backbone.input != images:
        raise FssError(
            f"The images are normalised for {images}, but {type(backbone).__name__} with its weights expects "
            f"{backbone.input}: its class must say so without the weights, as its attribute input."
        )


def feature_cache_mb(config: Node) -> int:
    """Return the limit of the feature cache of tests, in MiB; checkpoints from before the option lack it.

    Args:
        config: the whole configuration.
    """
    return int(config.get("feature_cache_mb", FEATURE_CACHE_MB))


def _loading(config: Node) -> LoaderOptions:
    return LoaderOptions(
        config["recipe"]["batch_size"],
        config["test_batch_size"],
        config["workers"],
        group_by_image=feature_cache_mb(config) > 0,
    )


def _options(kind: type[Any], data: Node) -> Any:
    return kind(**{k: data[k] for k in kind.__dataclass_fields__ if k in data})


def _tried(group: str, node: Node, attempt: Callable[[], Any]) -> None:
    """Refuse arguments now that would fail at the first step."""
    try:
        attempt()
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{group}.{key}={value}" for key, value in node.items())
        text = " ".join(str(error).split())
        raise FssError(
            f"The options of {group} cannot be used: {text}. Given: {given}. All options: {program()} --help"
        ) from error


def _is_optimizer(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Optimizer)


def _is_schedule(found: Any) -> bool:
    """Tell whether something is a schedule as those of :mod:`fss.lit.optim`: a function of the progress."""
    return inspect.isfunction(found) and next(iter(inspect.signature(found).parameters), "") == "progress"
