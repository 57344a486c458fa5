"""Layers whose weight is multiplied by a trained diagonal, and functions to swap them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fss.finetune.layers.beside import BesideWeight
from fss.finetune.layers.surgery import find
from fss.finetune.layers.swap import swap_layers
from fss.types import StagedBackbone


class ScaledLayer(BesideWeight):
    """A layer whose weight is multiplied by a new diagonal S' outside its singular space, on the output or input side.

    Attributes:
        plain_weight: weight of the plain layer, (Co, ...); for a convolution (Co, Ci / groups, k, k).
        bias: (Co), or None; not scaled.
        scale: the diagonal; broadcasts to the weight by group, (groups, Co / groups, Ci / groups, k * k).
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, shape: tuple[int, int, int, int]) -> None:
        """Take over the parameters of a layer.

        Args:
            layer: the plain layer.
            shape: shape of the diagonal, broadcast to (groups, Co / groups, Ci / groups, k * k).
        """
        super().__init__(layer)
        plain = self.plain_weight
        self.scale = nn.Parameter(torch.ones(shape, device=plain.device, dtype=plain.dtype))

    @property
    def weight(self) -> Tensor:
        """The weight after scaling, in its own shape."""
        plain, groups = self.plain_weight, self.geometry.groups
        blocks = plain.reshape(groups, plain.shape[0] // groups, plain.shape[1], -1)
        return (blocks * self.scale).reshape(plain.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the scaled weight; scaling the weight instead of a map saves an activation.

        Args:
            x: input of the plain layer.

        Returns:
            Output with the plain layer's shape.
        """
        return self.geometry.run(x, self.weight, self.bias)


def swap_scaled(
    backbone: StagedBackbone, stages: Sequence[int], build: Callable[[nn.Conv2d | nn.Linear], ScaledLayer]
) -> list[str]:
    """Replace convolutions and linear layers by scaled ones; attention keeps its plain weights.

    Args:
        backbone: changed in place; a second call does nothing.
        stages: stages to change.
        build: builds the scaled layer from a plain one.

    Returns:
        Deviations to record with the result.

    Raises:
        FssError: if a layer cannot be scaled; nothing is changed then.
    """
    return swap_layers(backbone, stages, lambda _, layer: build(layer)).notes


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
