"""The contract of every layer that a strategy puts in the place of a plain one."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class TunedLayer(nn.Module, ABC):
    """A layer that a strategy put in the place of a plain one and can turn back into one."""

    @abstractmethod
    def merge(self) -> nn.Module:
        """Return a plain layer with equal output."""

    @property
    @abstractmethod
    def plain_size(self) -> int:
        """Number of parameter values of the plain layer."""
