"""Forward and backward pass of one factored convolution followed by frozen batch norm and an activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.finetune.layers.geometry import ConvGeometry, convolve
from fss.finetune.layers.svd import rebuild

Act = Literal["none", "relu", "relu6"]
"""Activations whose gradient passes or not, which is one bit per element."""


@dataclass(frozen=True)
class Unit:
    """One convolution of a chain: y = act(scale * (U diag(S) (V * x)) + shift).

    Attributes:
        geometry: geometry of the convolution, with numeric padding.
        keep: keep V * x for the backward pass; otherwise it is recomputed from the previous unit, which the first
            unit does not have.
        act: the activation that follows.
        depthwise: whether every channel has a filter of its own, of rank 1: U and S then only scale a channel, and
            scale the filter instead of the map.
    """

    geometry: ConvGeometry
    keep: bool
    act: Act
    depthwise: bool = False


@dataclass(frozen=True)
class Values:
    """The tensors of a unit.

    Attributes:
        U: (Co, R).
        S: (groups * R); the only tensor that gets a gradient.
        V: (groups * R, Ci / groups, k, k).
        scale: factor per output channel, (Co).
        shift: offset per output channel, (Co).
    """

    U: Tensor
    S: Tensor
    V: Tensor
    scale: Tensor
    shift: Tensor

    @property
    def all(self) -> tuple[Tensor, ...]:
        """All five tensors, in field order."""
        return self.U, self.S, self.V, self.scale, self.shift


def activated(unit: Unit, x: Tensor) -> Tensor:
    """Apply the activation in place, (N, Co, h, w)."""
    if unit.act == "relu6":
        return x.clamp_(0, 6)
    return x.relu_() if unit.act == "relu" else x


def passes(unit: Unit, y: Tensor) -> Tensor:
    """Tell by the output of the activation where its gradient passes, (N, Co, h, w), bool."""
    return (y > 0).logical_and_(y < 6) if unit.act == "relu6" else y > 0


def right(unit: Unit, values: Values, x: Tensor) -> Tensor:
    """Return V * x, (N, groups * R, h, w)."""
    return unit.geometry.run(x, values.V.to(x.dtype), None)


def left(unit: Unit, values: Values, inner: Tensor) -> Tensor:
    """Return scale * (U diag(S) inner) + shift, (N, Co, h, w)."""
    if unit.depthwise:
        factor = _per_channel(values).to(inner.dtype).view(-1, 1, 1)
        return torch.addcmul(values.shift.to(inner.dtype).view(-1, 1, 1), inner, factor)
    groups = unit.geometry.groups
    factor = _blocks(values.U, groups) * values.S.view(groups, 1, -1) * values.scale.view(groups, -1, 1)
    kernel = factor.reshape(*values.U.shape, 1, 1).to(inner.dtype)
    return F.conv2d(inner, kernel, values.shift.to(inner.dtype), groups=groups)


def whole(unit: Unit, values: Values, x: Tensor) -> Tensor:
    """Run both steps, as one convolution unless composing the weight costs more than it saves."""
    if unit.depthwise:
        weight = values.V * _per_channel(values).view(-1, 1, 1, 1)
        return unit.geometry.run(x, weight.to(x.dtype), values.shift.to(x.dtype))
    out, rank = values.U.shape
    fan_in = values.V[0].numel()
    stride = unit.geometry.stride
    positions = x.shape[0] * (x.shape[2] // stride[0]) * (x.shape[3] // stride[1])
    if positions * (rank * fan_in + out * rank - out * fan_in) < out * rank * fan_in:
        return left(unit, values, right(unit, values, x))
    weight = rebuild(values.U, values.S, values.V, unit.geometry.groups) * values.scale.view(-1, 1, 1, 1)
    return unit.geometry.run(x, weight.to(x.dtype), values.shift.to(x.dtype))


def left_back(unit: Unit, values: Values, g: Tensor) -> Tensor:
    """Return h = U^T (scale g), (N, groups * R, h, w), for a gradient g of the output.

    Of a depthwise unit, g itself: what scales a channel is left to those that use h.
    """
    if unit.depthwise:
        return g
    groups, (out, rank) = unit.geometry.groups, values.U.shape
    factor = _blocks(values.U, groups) * values.scale.view(groups, -1, 1)
    kernel = factor.transpose(1, 2).reshape(groups * rank, out // groups, 1, 1)
    return F.conv2d(g, kernel.to(g.dtype), groups=groups)


def s_back(unit: Unit, values: Values, h: Tensor, inner: Tensor) -> Tensor:
    """Return the gradient of S, (groups * R), from h of :func:`left_back` and V * x."""
    found = (h * inner).sum(dim=(0, 2, 3), dtype=values.S.dtype)
    return found * values.U.view(-1) * values.scale if unit.depthwise else found


def right_back(unit: Unit, values: Values, h: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the input gradient V^T * (S h), (N, Ci, H, W), for an input of the given shape."""
    geometry, (height, width) = unit.geometry, values.V.shape[2:]
    factor = _per_channel(values) if unit.depthwise else values.S
    kernel = (values.V * factor.view(-1, 1, 1, 1)).to(h.dtype)
    padding = cast(tuple[int, int], geometry.padding)
    if unit.depthwise and values.V.shape[1] == 1 and geometry.stride == (1, 1):
        dilation = geometry.dilation
        rest = (dilation[0] * (height - 1) - padding[0], dilation[1] * (width - 1) - padding[1])
        if min(rest) >= 0:  # a convolution with the turned filter, which a CPU runs several times faster
            return convolve(h, kernel.flip(2, 3), None, (1, 1), rest, dilation, geometry.groups)
    output_padding = [
        size - ((small - 1) * stride - 2 * pad + dilation * (k - 1) + 1)
        for size, small, stride, pad, dilation, k in zip(
            shape[2:], h.shape[2:], geometry.stride, padding, geometry.dilation, (height, width), strict=True
        )
    ]
    # not aten's convolution_backward, which takes the memory layout from the input, which is not kept
    return F.conv_transpose2d(
        h, kernel, None, geometry.stride, padding, output_padding, geometry.groups, geometry.dilation
    )


def _per_channel(values: Values) -> Tensor:
    """Return what scales the output of a depthwise filter, (C)."""
    return values.U.view(-1) * values.S * values.scale


def _blocks(U: Tensor, groups: int) -> Tensor:
    return U.view(groups, -1, U.shape[1])
