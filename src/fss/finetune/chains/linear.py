"""A factored linear layer as one autograd function that saves V x, and nothing else.

With y = U diag(S) V x + b and h = U^T g for a gradient g of y:

    dL/dS_r = sum over positions of h_r (V x)_r          dL/dx = V^T (S h)

Several matrices may be stacked in one weight, as attention stacks query, key and value: each then has its own factors.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.finetune.layers.factored import SVFLinear
from fss.finetune.layers.svd import rebuild


def linear(layer: SVFLinear, x: Tensor) -> Tensor:
    """Apply a layer of which only the diagonal trains.

    Args:
        layer: the layer.
        x: (..., Ci).

    Returns:
        (..., Co).
    """
    S = layer.values
    if torch.is_grad_enabled() and (x.requires_grad or S.requires_grad):
        return cast(Tensor, _Linear.apply(layer.geometry.groups, None, None, x, S, layer.U, layer.V, layer.bias))
    return whole(layer, x)


def right(layer: SVFLinear, x: Tensor) -> Tensor:
    """Return V x, (..., groups * R), without gradients."""
    x = _cast(x)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        return _right(x, layer.V)


def left(layer: SVFLinear, inner: Tensor) -> Tensor:
    """Return U diag(S) inner + bias, (..., Co), without gradients."""
    with torch.no_grad(), torch.autocast(inner.device.type, enabled=False):
        return _left(inner, layer.U, layer.values, layer.bias, layer.geometry.groups)


def whole(layer: SVFLinear, x: Tensor) -> Tensor:
    """Apply the layer without gradients, in one step unless composing the weight costs more than it saves."""
    (out, rank), fan_in = layer.U.shape, layer.V.shape[1]
    positions = x.numel() // fan_in
    stacked = layer.V.shape[0]  # groups * R
    if positions * (stacked * fan_in + out * rank - out * fan_in) < out * rank * fan_in:
        return left(layer, right(layer, x))
    x = _cast(x)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        weight = rebuild(layer.U, layer.values, layer.V, layer.geometry.groups)
        return F.linear(x, weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))


def given(layer: SVFLinear, x: Tensor, inner: Tensor, fill: float | None) -> Tensor:
    """Apply a layer whose V x is known.

    Args:
        layer: the layer.
        x: stands for the input, (..., Ci); only its shape and type are read.
        inner: V x, (..., groups * R).
        fill: value of the output where only gradients are wanted; None: the true output.

    Returns:
        (..., Co).
    """
    found = _Linear.apply(layer.geometry.groups, fill, inner, x, layer.values, layer.U, layer.V, layer.bias)
    return cast(Tensor, found)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        groups: int,
        fill: float | None,
        inner: Tensor | None,
        x: Tensor,
        S: Tensor,
        U: Tensor,
        V: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        ctx.groups, ctx.dtype = groups, x.dtype
        x = _cast(x)
        with torch.autocast(x.device.type, enabled=False):
            inner = _right(x, V) if inner is None else inner
            ctx.save_for_backward(inner, S, U, V)
            if fill is not None:
                return inner.new_full((*inner.shape[:-1], len(U)), fill)
            return _left(inner, U, S, bias, groups)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        inner, S, U, V = ctx.saved_tensors
        s_gradient = x_gradient = None
        with torch.autocast(g.device.type, enabled=False):
            h = _left_back(g, U, ctx.groups)
            if ctx.needs_input_grad[4]:
                s_gradient = (h * inner).view(-1, len(S)).sum(dim=0, dtype=S.dtype)
            if ctx.needs_input_grad[3]:
                x_gradient = F.linear(h, (V * S[:, None]).t().to(h.dtype)).to(ctx.dtype)
        return None, None, None, x_gradient, s_gradient, None, None, None


def _right(x: Tensor, V: Tensor) -> Tensor:
    return F.linear(x, V.to(x.dtype))


def _left(inner: Tensor, U: Tensor, S: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    weight = (U.view(groups, -1, U.shape[1]) * S.view(groups, 1, -1)).to(inner.dtype)
    bias = None if bias is None else bias.to(inner.dtype)
    if groups == 1:
        return F.linear(inner, weight[0], bias)
    y = torch.cat([F.linear(i, w) for i, w in zip(inner.chunk(groups, -1), weight, strict=True)], -1)
    return y if bias is None else y.add_(bias)


def _left_back(g: Tensor, U: Tensor, groups: int) -> Tensor:
    blocks = U.to(g.dtype).view(groups, -1, U.shape[1])
    if groups == 1:
        return F.linear(g, blocks[0].t())
    return torch.cat([F.linear(i, u.t()) for i, u in zip(g.chunk(groups, -1), blocks, strict=True)], -1)


def _cast(x: Tensor) -> Tensor:
    """Cast as autocast would, which leaves float64 alone."""
    device = x.device.type
    casts = torch.is_autocast_enabled(device) and x.dtype is not torch.float64
    return x.to(torch.get_autocast_dtype(device)) if casts else x
