"""Ranges of plain values, checked before anything is imported, read or written for a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fss.data.episodes.options import EpisodeOptions, IndexOptions
from fss.data.options import TransformOptions
from fss.episode_protocol import EpisodeProtocol
from fss.errors import DataError, FssError

Node = Mapping[str, Any]

# key -> least value allowed; "whole" keys must be whole numbers. A key that a configuration lacks is not checked:
# checkpoints of older versions lack some, and groups differ.
_WHOLE = {
    "data.epochs": 1,
    "data.image_cache_mb": 0,
    "backbone.width": 1,
    "method.width": 1,
    "method.kshot_hidden": 0,
    "finetune.rank_rounding": 1,
    "test_batch_size": 1,
    "feature_cache_mb": 0,
    "trainer.num_nodes": 1,
    "trainer.max_epochs": 1,
    "trainer.max_steps": -1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.num_sanity_val_steps": -1,
    "trainer.log_every_n_steps": 0,
    "trainer.accumulate_grad_batches": 1,
}
_NUMBERS = {
    "method.dropout": (0.0, 1.0),
    "method.meta_weight": (0.0, math.inf),
    "method.base_weight": (0.0, math.inf),
    "method.aux_weight": (0.0, math.inf),
    "recipe.optimizer.lr": (0.0, math.inf),
    "recipe.optimizer.momentum": (0.0, 1.0),
    "recipe.optimizer.weight_decay": (0.0, math.inf),
    "recipe.backbone_lr_factor": (0.0, math.inf),
    "recipe.schedule.power": (0.0, math.inf),
}
_FACTORS = ("U", "S", "V")


def check_values(config: Node) -> None:
    """Check values that constructors would refuse much later, or not at all.

    Args:
        config: resolved, plain values.

    Raises:
        FssError: on the first wrong value.
    """
    for name, least in _WHOLE.items():
        if (value := _find(config, name)) is not None:
            whole(name, value, least, None)
    for name, (low, high) in _NUMBERS.items():
        if (value := _find(config, name)) is not None:
            number(name, value, low, high)
    factors = _find(config, "finetune.factors")
    if factors is not None and (not isinstance(factors, list) or not factors or not set(factors) <= set(_FACTORS)):
        raise FssError(
            f"finetune.factors={factors} is not allowed: give a list of one or more of {', '.join(_FACTORS)}, e.g. [S]."
        )
    _data(config["data"])
    episode_protocol(config)


def episode_protocol(config: Node) -> EpisodeProtocol:
    """Return the protocol of a configuration; checkpoints from before the group lack it.

    Args:
        config: resolved, plain values.

    Raises:
        FssError: on a wrong value.
    """
    node = config.get("protocol") or {}
    return EpisodeProtocol(**{k: node[k] for k in EpisodeProtocol.__dataclass_fields__ if k in node})


def whole(name: str, value: object, low: int, high: int | None) -> None:
    """Check a whole number.

    Args:
        name: its key.
        value: what was given.
        low: least value allowed.
        high: largest one, None for no limit.

    Raises:
        FssError: if it is no whole number or out of range.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= low and (high is None or value <= high)
    if not fits:
        allowed = f"from {low} up" if high is None else f"from {low} to {high}"
        raise FssError(f"{name}={value} is not allowed: give a whole number {allowed}.")


def number(name: str, value: object, low: float, high: float) -> None:
    """Check a number.

    Args:
        name: its key.
        value: what was given.
        low: least value allowed.
        high: largest one, infinity for no limit.

    Raises:
        FssError: if it is no number or out of range.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits or value == math.inf:
        allowed = f"from {low:g} up" if high == math.inf else f"from {low:g} to {high:g}"
        raise FssError(f"{name}={value} is not allowed: give a number {allowed}.")


def _data(node: Node) -> None:
    """Make the option groups of the data module, which check themselves."""
    try:
        for kind in (TransformOptions, IndexOptions, EpisodeOptions):
            kind(**{k: node[k] for k in kind.__dataclass_fields__ if k in node})
    except DataError as error:
        raise FssError(f"data.{error}") from error


def _find(config: Node, name: str) -> Any:
    """Return a nested value, None where it is not there or null."""
    node: Any = config
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
