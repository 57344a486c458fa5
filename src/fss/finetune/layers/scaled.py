"""Layers whose weight is multiplied by a trained diagonal, and how they are swapped in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fss.finetune.layers.geometry import geometry_of
from fss.finetune.layers.surgery import find, plain_layers
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone


class ScaledLayer(TunedLayer):
    """A weight multiplied by a new diagonal S' outside its singular space, on its output or its input side.

    Attributes:
        weight: the plain layer's, (Co, ...); for a convolution (Co, Ci / groups, k, k).
        bias: (Co), or None; it is not scaled.
        scale: the diagonal; its shape broadcasts to the weight by group, (groups, Co / groups, Ci / groups * k * k).
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, shape: tuple[int, int, int, int]) -> None:
        """Take over a layer.

        Args:
            layer: the plain one.
            shape: of the diagonal, broadcast to (groups, Co / groups, Ci / groups, k * k); 1 shares a value.

        Raises:
            FssError: if a convolution pads with anything but zeros.
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
        """Apply the scaled weight; the weight is scaled rather than a map, which saves an activation.

        Args:
            x: what the plain layer takes.

        Returns:
            What it returns.
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
