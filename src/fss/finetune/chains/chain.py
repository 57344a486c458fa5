"""Chains of factored convolutions, frozen batch norm and ReLU or ReLU6 as one autograd function that saves little.

With y = act(c * (U diag(S) (V * x)) + d), where c and d are the affine map of frozen batch norm, and h = U^T (c g),
where g is the gradient at the activation's input:

    dL/dS_r = sum over positions of h_r (V * x)_r          dL/dx = V^T * (S h)

The backward pass thus needs V * x but not x: R channels per convolution, plus one bit per element of a ReLU (of ReLU6:
whether it lies strictly between 0 and 6). Within a chain, V * x can also be recomputed from the previous unit, which
costs almost nothing for a 1x1 convolution on a narrow map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from fss.finetune.chains.sign_bits import pack, unpack
from fss.finetune.chains.unit import (
    Unit,
    Values,
    activated,
    left,
    left_back,
    passes,
    right,
    right_back,
    s_back,
    whole,
)

_PARTS = len(Values.__dataclass_fields__)
_S = 1  # position of S among the fields of Values
_BEFORE = 3  # arguments of _Chain.apply before the tensors of the units


def chain(x: Tensor, residual: Tensor | None, units: Sequence[Unit], values: Sequence[Values]) -> Tensor:
    """Run units in sequence; the residual is added before the last ReLU.

    Args:
        x: (N, Ci, H, W).
        residual: (N, Co, h, w), or None.
        units: at least one; ``keep`` must be set on the first.
        values: one per unit.

    Returns:
        (N, Co, h, w).
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, residual = x.to(dtype), None if residual is None else residual.to(dtype)
    if torch.is_grad_enabled() and (x.requires_grad or any(one.S.requires_grad for one in values)):
        flat = [tensor for one in values for tensor in one.all]
        return cast(Tensor, _Chain.apply(tuple(units), x, residual, *flat))
    with torch.autocast(device, enabled=False):
        for unit, one in zip(units[:-1], values[:-1], strict=True):
            x = activated(unit, whole(unit, one, x))
        return activated(units[-1], _added(whole(units[-1], values[-1], x), residual))


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, units: tuple[Unit, ...], x: Tensor, residual: Tensor | None, *flat: Tensor) -> Tensor:
        values, shape, last = _regroup(flat), x.shape, len(units) - 1
        kept: list[Tensor] = []
        bits: list[Tensor] = []
        layouts: list[tuple[torch.Size, tuple[int, ...]]] = []
        with torch.autocast(x.device.type, enabled=False):
            for index, (unit, one) in enumerate(zip(units, values, strict=True)):
                if unit.keep:
                    kept.append(right(unit, one, x))
                    x = left(unit, one, kept[-1])
                else:
                    x = whole(unit, one, x)
                x = activated(unit, _added(x, residual) if index == last else x)
                if unit.act != "none" and (index == last or units[index + 1].keep):  # else recomputed, with its bits
                    bits.append(pack(passes(unit, x)))
                    layouts.append((x.shape, x.stride()))
        ctx.units, ctx.kept, ctx.shape, ctx.layouts = units, len(kept), shape, layouts
        ctx.save_for_backward(*kept, *bits, *flat)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        units: tuple[Unit, ...] = ctx.units
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        begin, layouts = len(saved) - _PARTS * len(units), list(ctx.layouts)
        values, bits = _regroup(saved[begin:]), list(saved[ctx.kept : begin])
        grads: list[Tensor | None] = [None] * (_PARTS * len(units))
        with torch.autocast(g.device.type, enabled=False):
            if units[-1].act != "none":
                g = g * unpack(bits.pop(), *layouts.pop())
            residual = g if ctx.needs_input_grad[2] else None
            inners, maps = _recompute(units, values, saved[: ctx.kept])
            for index in reversed(range(len(units))):
                unit, one = units[index], values[index]
                if index < len(units) - 1 and unit.act != "none":
                    recomputed = maps.pop(index, None)
                    g = g.mul_(unpack(bits.pop(), *layouts.pop()) if recomputed is None else passes(unit, recomputed))
                h = left_back(unit, one, g)
                inner = inners.pop()
                if ctx.needs_input_grad[_BEFORE + _PARTS * index + _S]:
                    grads[_PARTS * index + _S] = s_back(unit, one, h, inner)
                if index == 0 and not ctx.needs_input_grad[1]:
                    break
                shape = (len(g), len(values[index - 1].U), *inners[-1].shape[2:]) if index else ctx.shape
                g = right_back(unit, one, h, shape)
        return None, g if ctx.needs_input_grad[1] else None, residual, *grads


def _recompute(
    units: Sequence[Unit], values: Sequence[Values], kept: Sequence[Tensor]
) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Return V * x of every unit, and by index the unit outputs that were recomputed for it."""
    rest, inners, maps = list(kept), [], {}
    for index, (unit, one) in enumerate(zip(units, values, strict=True)):
        if unit.keep:
            inners.append(rest.pop(0))
            continue
        before = index - 1
        maps[before] = activated(units[before], left(units[before], values[before], inners[before]))
        inners.append(right(unit, one, maps[before]))
    return inners, maps


def _added(x: Tensor, residual: Tensor | None) -> Tensor:
    return x if residual is None else x.add_(residual)


def _regroup(flat: Sequence[Tensor]) -> list[Values]:
    return [Values(*flat[i : i + _PARTS]) for i in range(0, len(flat), _PARTS)]
