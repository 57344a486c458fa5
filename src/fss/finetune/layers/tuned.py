"""The base class of the layers that strategies swap in for plain ones."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class TunedLayer(nn.Module, ABC):
    """A layer that replaces a plain one and can be merged back into a plain one."""

    @abstractmethod
    def merge(self) -> nn.Module:
        """Return a plain layer with equal output."""

    @property
    @abstractmethod
    def plain_size(self) -> int:
        """Number of parameter values of the plain layer."""
