"""Which layers compute exactly what torch's own do, so that a stand-in with other values can replace them."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.nn.utils import parametrize

KINDS: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)
"""Classes of the layers that strategies change."""

SAME_FORMULA = frozenset({"timm.layers.linear.Linear"})
"""Subclasses with a ``forward`` of their own that computes the same: it only casts values for TorchScript."""

_FORMULA = frozenset(
    {
        *("forward", "_conv_forward", "__call__", "_call_impl", "__getattr__", "__getattribute__"),
        *("weight", "bias", "in_proj_weight", "in_proj_bias", "out_proj"),
        *("stride", "padding", "dilation", "groups", "padding_mode", "num_heads", "dropout", "batch_first"),
    }
)
"""What a subclass must leave alone to compute what torch's class does."""


def plain_class(layer: nn.Module) -> type[nn.Module]:
    """Return a layer's class, without the one that torch's parametrizations put over it."""
    return type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)


def is_stock(layer: nn.Module) -> bool:
    """Tell whether a layer computes what torch's own class does, and holds nothing besides.

    Judged by the code of its class, the methods and values of the instance, and its padding. A weight that torch
    parametrizes (spectral or weight norm) counts as a weight.

    Args:
        layer: convolution, linear layer or attention.
    """
    base = next((kind for kind in KINDS if isinstance(layer, kind)), None)
    if base is None or _changes_formula(plain_class(layer), base):
        return False
    attributes, parameters, children = _held(KINDS.index(base))
    ours = set(vars(layer)), set(layer._parameters), set(layer._modules)
    if parametrize.is_parametrized(layer):
        if base is nn.MultiheadAttention or not parametrize.is_parametrized(layer, "weight"):
            return False
        if len(layer.parametrizations) > 1:  # type: ignore[arg-type]  # a ModuleDict
            return False
        ours = ours[0], ours[1] | {"weight"}, ours[2] - {"parametrizations"}
    if ours[0] - attributes or ours[1] != parameters or ours[2] != children or layer._buffers:
        return False
    return not isinstance(layer, nn.Conv2d) or layer.padding_mode == "zeros"


def _changes_formula(own: type[nn.Module], base: type[nn.Module]) -> bool:
    """Tell whether a class between a layer's own and torch's computes something else."""
    between = own.__mro__[: own.__mro__.index(base)]
    return any(
        not _FORMULA.isdisjoint(vars(one))
        for one in between
        if f"{one.__module__}.{one.__qualname__}" not in SAME_FORMULA
    )


@cache
def _held(kind: int) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the names of attributes, parameters and submodules of torch's own layer."""
    with torch.device("meta"):  # draws no random numbers
        one = (nn.Conv2d(1, 1, 1), nn.Linear(1, 1), nn.MultiheadAttention(1, 1))[kind]
    return frozenset(vars(one)), frozenset(one._parameters), frozenset(one._modules)
