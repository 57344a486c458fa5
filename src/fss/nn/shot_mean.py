"""Aggregation over K shots."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

ShotAggregation = Literal["mean", "sum"]


def aggregate(per_shot: Tensor, how: ShotAggregation) -> Tensor:
    """Reduce the shot axis.

    Args:
        per_shot: (B, K, C, h, w).
        how: ``mean``, or the SVF release's undivided ``sum``.

    Returns:
        (B, C, h, w).
    """
    return per_shot.mean(dim=1) if how == "mean" else per_shot.sum(dim=1)
