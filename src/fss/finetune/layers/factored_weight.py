"""Factors of the weight of a layer that applies it in a way of its own."""

from __future__ import annotations

from torch import Tensor

from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.geometry import OwnGeometry


class FactoredWeight(FactoredLayer):
    """A weight kept as W = U diag(S) V; its layer reads it, see :class:`fss.finetune.layers.on_weight.TunedWeight`.

    Attributes:
        U: left factor, (Co, R).
        S: diagonal, (groups * R).
        V: right factor, (groups * R, ...).
        bias: None, as the bias stays with the layer.
    """

    geometry: OwnGeometry

    def formula(self, x: Tensor) -> Tensor:
        """Raise: only the layer itself can apply the weight."""
        return self.geometry.run(x, self.weight, None)
