"""The base class of layers that keep the plain weight and train other values beside it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from fss.finetune.layers.geometry import OwnGeometry, geometry_of
from fss.finetune.layers.tuned import TunedLayer


class BesideWeight(TunedLayer):
    """A layer that keeps a plain layer's weight, and applies another one that is computed from it.

    Attributes:
        geometry: the plain layer without its values.
        bias: (Co), or None.
    """

    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        """Take over the parameters of a layer.

        Args:
            layer: the plain layer. One that applies its weight in a way of its own keeps its bias.
        """
        super().__init__()
        self.geometry = geometry_of(layer)
        plain = layer.weight
        if not isinstance(plain, nn.Parameter):  # torch computes it anew in every step (spectral norm)
            plain = nn.Parameter(plain.detach().clone())
        self._parameters["weight"] = plain  # the attribute of that name is the weight that is applied
        self.bias = None if isinstance(self.geometry, OwnGeometry) else layer.bias
        self.answer(self.geometry.facts(plain.shape))

    @property
    def plain_weight(self) -> Tensor:
        """The weight of the plain layer, (Co, ...)."""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The weight that is applied, in the plain one's shape."""

    @property
    def plain_size(self) -> int:
        """Number of values of the plain layer's weight and bias."""
        return self.plain_weight.numel() + (0 if self.bias is None else self.bias.numel())

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Return a plain layer with equal output."""
        return self.geometry.build(self.weight, self.bias)
