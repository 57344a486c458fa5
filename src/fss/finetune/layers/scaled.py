"""Layers whose weight is multiplied by a trained diagonal, and functions to swap them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fss.finetune.layers.geometry import geometry_of
from fss.finetune.layers.surgery import find, plain_layers
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone


class ScaledLayer(TunedLayer):
    """A layer whose weight is multiplied by a new diagonal S' outside its singular space, on the output or input side.

    Attributes:
        weight: weight of the plain layer, (Co, ...); for a convolution (Co, Ci / groups, k, k).
        bias: (Co), or None; not scaled.
        scale: the diagonal; broadcasts to the weight by group, (groups, Co / groups, Ci / groups, k * k).
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, shape: tuple[int, int, int, int]) -> None:
        """Take over the parameters of a layer.

        Args:
            layer: the plain layer.
            shape: shape of the diagonal, broadcast to (groups, Co / groups, Ci / groups, k * k).

        Raises:
            FssError: if a convolution's padding mode is not ``zeros``.
        """
        super().__init__()
        self.geometry = geometry_of(layer)
        self.weight = layer.weight
        self.bias = layer.bias
        self.scale = nn.Parameter(torch.ones(shape, device=layer.weight.device, dtype=layer.weight.dtype))

    @property
    def scaled(self) -> Tensor:
        """The weight after scaling, in its own shape."""
        groups, rows = self.geometry.groups, self.weight.shape[0] // self.geometry.groups
        blocks = self.weight.reshape(groups, rows, self.weight.shape[1], -1)
        return (blocks * self.scale).reshape(self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the scaled weight; scaling the weight instead of a map saves an activation.

        Args:
            x: input of the plain layer.

        Returns:
            Output with the plain layer's shape.
        """
        return self.geometry.run(x, self.scaled, self.bias)

    @property
    def plain_size(self) -> int:
        """Number of values of the plain layer's weight and bias."""
        return self.weight.numel() + (0 if self.bias is None else self.bias.numel())

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Return a plain layer with equal output."""
        return self.geometry.build(self.scaled, self.bias)


def swap_scaled(
    backbone: StagedBackbone, stages: Sequence[int], build: Callable[[nn.Conv2d | nn.Linear], ScaledLayer]
) -> None:
    """Replace convolutions and linear layers by scaled ones; attention keeps its plain weights.

    Args:
        backbone: changed in place; a second call does nothing.
        stages: stages to change.
        build: builds the scaled layer from a plain one.
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
