"""Optimisers of backbone and head, their groups, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fss.errors import FssError
from fss.lit.joined_optimizer import JoinedOptimizer
from fss.model.segmenter import FewShotSegmenter

Schedule = Callable[[float], float]
"""Progress in [0, 1] -> factor of the learning rate."""


def constant(progress: float) -> float:
    """Keep the rate constant, which is the effect of the SVF release's repeatedly rebuilt cosine schedule.

    Args:
        progress: share of the training that is done.

    Returns:
        1.
    """
    return 1.0


def cosine(progress: float) -> float:
    """Decay to zero along half a cosine (SGDR without restarts, arXiv 1608.03983).

    Args:
        progress: share of the training that is done.

    Returns:
        Factor from 1 to 0.
    """
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def poly(progress: float, power: float = 0.9) -> float:
    """Decay polynomially, as PFENet and BAM train.

    Args:
        progress: share of the training that is done.
        power: exponent.

    Returns:
        Factor from 1 to 0.
    """
    return float((1 - min(progress, 1.0)) ** power)


@dataclass(frozen=True)
class Optimisation:
    """One optimiser with its schedule.

    Attributes:
        optimizer: partial of a torch optimiser; its ``lr`` is the rate of groups with factor 1.
        schedule: factor of every group's rate, stepped per iteration.
    """

    optimizer: Callable[..., Optimizer]
    schedule: Schedule = cosine


@dataclass(frozen=True)
class Recipe(Optimisation):
    """How parameters are optimised; the main optimiser is that of the backbone and of most of the head.

    Attributes:
        backbone_lr_factor: rate of tuned backbone values relative to the head's.
        untrained: children of the head that keep their initial values (the SVF release does not train ``down_query``).
        further: other optimisers by the name that groups of the head ask for (AdamW for a transformer).
    """

    backbone_lr_factor: float = 0.1
    untrained: tuple[str, ...] = field(default=())
    further: Mapping[str, Optimisation] = field(default_factory=dict)


def freeze_untrained(head: nn.Module, names: Iterable[str]) -> None:
    """Freeze the children of a head that a recipe leaves untrained.

    Args:
        head: the head.
        names: names of its children.

    Raises:
        FssError: if the head has no such child.
    """
    children = head._modules  # a part that this head can do without is None there
    for name in names:
        if name not in children:
            raise FssError(f"recipe.untrained names {name!r}, but the head has {sorted(children)}")
        part = children[name]
        if part is not None:
            part.requires_grad_(False)


def parameter_groups(model: FewShotSegmenter, recipe: Recipe) -> list[dict[str, Any]]:
    """Collect trainable parameters by group, with the rate factor of each.

    Args:
        model: with its strategy injected.
        recipe: gives the factors.

    Returns:
        Parameter groups for a torch optimiser: ``params``, ``lr_factor``, ``name``, ``optimizer`` and overrides.

    Raises:
        FssError: if nothing trains, or the recipe has an optimiser that no group asks for.
    """
    groups: list[dict[str, Any]] = []
    tuned = [p for p in model.backbone.parameters() if p.requires_grad]
    if tuned:
        groups.append({"params": tuned, "name": "backbone", "lr_factor": recipe.backbone_lr_factor, "optimizer": ""})
    heads = model.head.param_groups()
    unasked = sorted(recipe.further.keys() - {group.optimizer for group in heads})
    if unasked:
        asked = ", ".join(sorted({group.optimizer for group in heads} - {""})) or "none"
        raise FssError(
            f"recipe.optimizers has {', '.join(unasked)}, but the head {model.head.name} has no parameters for it: "
            f"leave it out. Further optimisers that it asks for: {asked}."
        )
    for group in heads:
        trainable = [p for p in group.parameters if p.requires_grad]
        if not trainable:
            continue
        entry: dict[str, Any] = {"params": trainable, "name": group.name, "lr_factor": group.lr_factor}
        entry["optimizer"] = group.optimizer if group.optimizer in recipe.further else ""
        if group.weight_decay is not None:
            entry["weight_decay"] = group.weight_decay
        groups.append(entry)
    if not groups:
        raise FssError("nothing trains: the backbone is frozen and the head has no trainable parameter")
    return groups


def build_optimizer(model: FewShotSegmenter, recipe: Recipe, steps: int) -> tuple[Optimizer, LambdaLR]:
    """Build optimiser and schedule.

    Args:
        model: with its strategy injected.
        recipe: partials and factors.
        steps: number of optimiser steps of the whole training.

    Returns:
        The optimiser and a scheduler to be stepped once per iteration.
    """
    return optimizer_of(parameter_groups(model, recipe), recipe, steps)


def optimizer_of(groups: list[dict[str, Any]], recipe: Recipe, steps: int) -> tuple[Optimizer, LambdaLR]:
    """Build optimiser and schedule for given groups.

    Args:
        groups: ``params``, ``lr_factor``, ``name`` and overrides, as :func:`parameter_groups` returns them.
        recipe: partials and factors.
        steps: number of optimiser steps of the whole training.

    Returns:
        The optimiser, joined if groups belong to several, and a scheduler to be stepped once per iteration.
    """
    by_name: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_name.setdefault(group.pop("optimizer", ""), []).append(group)
    parts, schedules = [], []
    for name, own in by_name.items():
        kind = recipe.further[name] if name else recipe
        parts.append(_optimizer(kind, own))
        schedules += [_by_step(kind.schedule, steps)] * len(own)
    joined = parts[0] if len(parts) == 1 else JoinedOptimizer(parts)
    return joined, LambdaLR(joined, schedules)


def _optimizer(kind: Optimisation, groups: list[dict[str, Any]]) -> Optimizer:
    factors = [group.pop("lr_factor") for group in groups]
    optimizer = kind.optimizer(groups)
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        group["lr"] *= factor
    return optimizer


def _by_step(schedule: Schedule, steps: int) -> Callable[[int], float]:
    return lambda step: schedule(step / max(steps, 1))
