"""How much of the activations is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

from fss.errors import FssError

Memory = Literal["plain", "fast", "balanced", "least"]
"""Activations kept for the backward pass: all, layer by layer (``plain``); all that is not free to compute again, that
is V * x of every layer and, where it is not a ReLU, the input of an activation (``fast``); V * x of the layers that are
expensive to recompute (``balanced``); or as little as a block can be recomputed from (``least``)."""

CHEAP = 0.15
"""``balanced`` recomputes V * x if that costs at most this share of the block."""


def check_memory(memory: str) -> Memory:
    """Validate a memory rule.

    Args:
        memory: name of the rule.

    Returns:
        The same name.

    Raises:
        FssError: if it is none of :data:`Memory`.
    """
    if memory in get_args(Memory):
        return cast(Memory, memory)
    raise FssError(f"finetune.memory={memory} is not known: choose one of {', '.join(get_args(Memory))}.")


def keep(right_sizes: Sequence[int], left_sizes: Sequence[int], memory: Memory) -> list[bool]:
    """Choose the convolutions of a chain whose V * x is kept.

    Args:
        right_sizes: number of values of each V, proportional to the cost of V * x.
        left_sizes: number of values of each U.
        memory: the memory rule.

    Returns:
        One entry per convolution; the first is always kept because its input is not.
    """
    if memory == "fast":
        return [True] * len(right_sizes)
    if memory == "least":
        return [True] + [False] * (len(right_sizes) - 1)
    limit = CHEAP * (sum(right_sizes) + sum(left_sizes))
    recompute_costs = [r + before for r, before in zip(right_sizes[1:], left_sizes[:-1], strict=True)]
    return [True] + [cost > limit for cost in recompute_costs]
