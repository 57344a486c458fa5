"""A factored layer by itself, or within a block that is computed again in the backward pass, keeping V * x."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from fss.finetune.chains import linear
from fss.finetune.chains.chain import chain
from fss.finetune.chains.links import only_s_trains, unit_of, values_of
from fss.finetune.chains.tape import Tape, current
from fss.finetune.chains.unit import Unit, Values, left, left_back, right, right_back, s_back
from fss.finetune.layers.factored import FactoredLayer, SVFConv2d, SVFLinear


def run(layer: FactoredLayer, x: Tensor) -> Tensor:
    """Apply a factored layer; :attr:`fss.finetune.layers.factored.FactoredLayer.lean` points here.

    Args:
        layer: the layer.
        x: its input.

    Returns:
        Its output.
    """
    if x.is_meta or torch._C._get_tracing_state() is not None or not _knows(layer):
        return layer.formula(x)
    tape = None if torch.compiler.is_compiling() else current()
    return alone(layer, x) if tape is None else _on_tape(layer, x, tape)


def alone(layer: FactoredLayer, x: Tensor) -> Tensor:
    """Apply a layer of which only the diagonal trains, keeping V * x for the backward pass."""
    if isinstance(layer, SVFLinear):
        return linear.linear(layer, x)
    assert isinstance(layer, SVFConv2d)
    return chain(x, None, [unit_of(layer, True, "none")], [values_of(layer, None)])


def _knows(layer: FactoredLayer) -> bool:
    if isinstance(layer, SVFConv2d) and isinstance(layer.geometry.padding, str):
        return False
    return isinstance(layer, SVFConv2d | SVFLinear) and only_s_trains(layer)


def _on_tape(layer: FactoredLayer, x: Tensor, tape: Tape) -> Tensor:
    kept = tape.begin(layer, x)
    if kept is not None:  # computing again
        return _given(layer, x, kept, tape.unread())
    if not tape.keeps():
        return alone(layer, x)
    if isinstance(layer, SVFLinear):
        inner = linear.right(layer, x)
        tape.keep(inner)
        return linear.left(layer, inner)
    assert isinstance(layer, SVFConv2d)
    unit, values = unit_of(layer, True, "none"), values_of(layer, None)
    device = x.device.type
    x = x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
    with torch.no_grad(), torch.autocast(device, enabled=False):
        inner = right(unit, values, x)
        tape.keep(inner)
        return left(unit, values, inner)


def _given(layer: FactoredLayer, x: Tensor, inner: Tensor, fill: float | None) -> Tensor:
    if isinstance(layer, SVFLinear):
        return linear.given(layer, x, inner, fill)
    assert isinstance(layer, SVFConv2d)
    values = values_of(layer, None)
    return cast(Tensor, _Given.apply(unit_of(layer, True, "none"), fill, inner, x, *values.all))


class _Given(torch.autograd.Function):
    """A convolution whose V * x is known; of x only shape and type are read."""

    @staticmethod
    def forward(ctx: Any, unit: Unit, fill: float | None, inner: Tensor, x: Tensor, *flat: Tensor) -> Tensor:
        values = Values(*flat)
        ctx.unit, ctx.shape, ctx.dtype = unit, x.shape, x.dtype
        ctx.save_for_backward(inner, *flat)
        if fill is not None:
            return inner.new_full((len(inner), len(values.U), *inner.shape[2:]), fill)
        with torch.autocast(inner.device.type, enabled=False):
            return left(unit, values, inner)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        inner, *flat = ctx.saved_tensors
        values = Values(*flat)
        s_gradient = x_gradient = None
        with torch.autocast(g.device.type, enabled=False):
            h = left_back(ctx.unit, values, g)
            if ctx.needs_input_grad[5]:
                s_gradient = s_back(ctx.unit, values, h, inner)
            if ctx.needs_input_grad[3]:
                x_gradient = right_back(ctx.unit, values, h, ctx.shape).to(ctx.dtype)
        return None, None, None, x_gradient, None, s_gradient, None, None, None
