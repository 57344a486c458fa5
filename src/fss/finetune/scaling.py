"""Swap plain layers for scaled ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import nn

from fss.finetune.layers import ScaledLayer
from fss.finetune.surgery import find, plain_layers
from fss.types import StagedBackbone


def swap_scaled(
    backbone: StagedBackbone, stages: Sequence[int], build: Callable[[nn.Conv2d | nn.Linear], ScaledLayer]
) -> None:
    """Replace convolutions and linear layers; attention, whose weights are no layers, stays.

    Args:
        backbone: changed in place; nothing happens the second time.
        stages: stages to change.
        build: makes the scaled layer of a plain one.
    """
    kinds = nn.Conv2d | nn.Linear | nn.MultiheadAttention
    for site in plain_layers(backbone, stages, lambda m: isinstance(m, kinds)):
        layer = site.module
        if isinstance(layer, nn.Conv2d | nn.Linear):
            site.put(build(layer))


def scales(backbone: StagedBackbone, stages: Sequence[int]) -> Iterator[nn.Parameter]:
    """Yield the diagonals of the scaled layers of some stages.

    Args:
        backbone: after :func:`swap_scaled`.
        stages: stages to search.

    Yields:
        The parameters.
    """
    for site in find(backbone, stages, lambda m: isinstance(m, ScaledLayer)):
        assert isinstance(site.module, ScaledLayer)
        yield site.module.scale
