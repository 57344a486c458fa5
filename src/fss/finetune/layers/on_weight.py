"""Tuned values on the weight of a layer that applies it in a way of its own, by torch's parametrizations."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fss.errors import FssError
from fss.finetune.layers.tuned import TunedLayer

NAME = "weight"


class TunedWeight(TunedLayer):
    """A parametrization that computes a layer's weight from a tuned layer, which itself is never called.

    The layer, e.g. a weight-standardised or "SAME"-padded convolution, keeps its class, forward, bias and attributes.
    As torch's parametrizations, such layers can be copied, and saved by their state dict, but not pickled.

    Attributes:
        tuned: the tuned layer that would replace a plain one.
    """

    def __init__(self, owner: nn.Module, tuned: TunedLayer) -> None:
        """Hold the values; :meth:`attach` puts them on the weight.

        Args:
            owner: the layer.
            tuned: a tuned layer with a ``weight`` of the owner's shape, and without bias.
        """
        super().__init__()
        self.tuned = tuned
        self._owner = (owner,)  # in a tuple, as it is no submodule
        self._order: tuple[str, ...] = ()

    @property
    def owner(self) -> nn.Module:
        """The layer whose weight this is."""
        return self._owner[0]

    def attach(self) -> None:
        """Put the values on the owner's weight, which must be a parameter that nothing parametrizes yet."""
        self._order = tuple(self.owner._parameters)
        parametrize.register_parametrization(self.owner, NAME, self)

    def forward(self) -> Tensor:
        """Return the weight, in full precision under autocast: its layer may process it further."""
        device = next(self.parameters()).device.type
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return cast(Tensor, self.tuned.weight)
        with torch.autocast(device, enabled=False):
            return cast(Tensor, self.tuned.weight)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Take over the weight when attached; nothing of it is kept, because the tuned layer holds all values.

        Raises:
            FssError: if someone assigns another weight later.
        """
        if parametrize.is_parametrized(self.owner, NAME):
            raise FssError(
                f"The weight of a {type(self.owner).__name__} is computed from tuned values and cannot be assigned. "
                "Merge the strategy first (fss.finetune.merge)."
            )
        return ()

    @property
    def plain_size(self) -> int:
        """Number of values of the plain weight; the bias stays with the owner."""
        return self.tuned.plain_size

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Return a copy of the owner with a plain weight and equal output."""
        plain = copy.deepcopy(self.owner)
        found = tuned_weight(plain)
        assert found is not None
        found.detach_from_owner(self.tuned.weight.detach().clone())  # type: ignore[operator]
        return plain

    def detach_from_owner(self, weight: Tensor) -> None:
        """Give the owner a plain weight again.

        Args:
            weight: its values, (Co, ...).
        """
        # not parametrize.remove_parametrizations, which spoils the class that copies of the owner share
        owner = self.owner
        owner.__class__ = type(owner).__bases__[0]
        del owner._modules["parametrizations"]
        owner._parameters[NAME] = nn.Parameter(weight)
        ordered = {name: owner._parameters[name] for name in self._order}
        owner._parameters.clear()
        owner._parameters.update(ordered)


def tuned_weight(module: nn.Module) -> TunedWeight | None:
    """Return what computes a layer's weight from tuned values, or None.

    Args:
        module: any module.
    """
    if not parametrize.is_parametrized(module, NAME):
        return None
    found = module.get_submodule(f"parametrizations.{NAME}")[0]  # type: ignore[index]  # a list of modules
    return found if isinstance(found, TunedWeight) else None
