"""The base class of the layers that strategies swap in for plain ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import nn


class TunedLayer(nn.Module, ABC):
    """A layer that replaces a plain one and can be merged back into a plain one.

    One whose plain layer has a weight answers the weight that it applies as ``weight``: other modules read it, and a
    layer that applies its weight in a way of its own keeps its place and takes this one.
    """

    @abstractmethod
    def merge(self) -> nn.Module:
        """Return a plain layer with equal output."""

    @property
    @abstractmethod
    def plain_size(self) -> int:
        """Number of parameter values of the plain layer."""

    def answer(self, facts: Mapping[str, Any]) -> None:
        """Answer public numbers of the plain layer, which the modules around it may read.

        Args:
            facts: attribute -> value.
        """
        for name, value in facts.items():
            setattr(self, name, value)
