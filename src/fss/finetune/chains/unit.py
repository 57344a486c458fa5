"""Forward and backward pass of one factored convolution followed by frozen batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor

from fss.finetune.layers.geometry import ConvGeometry
from fss.finetune.layers.svd import rebuild


@dataclass(frozen=True)
class Unit:
    """One convolution of a chain: y = act(scale * (U diag(S) (V * x)) + shift).

    Attributes:
        geometry: geometry of the convolution, with numeric padding.
        keep: keep V * x for the backward pass; otherwise it is recomputed from the previous unit, which the first
            unit does not have.
        relu: whether a ReLU follows.
    """

    geometry: ConvGeometry
    keep: bool
    relu: bool


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


def right(unit: Unit, values: Values, x: Tensor) -> Tensor:
    """Return V * x, (N, groups * R, h, w)."""
    return unit.geometry.run(x, values.V.to(x.dtype), None)


def left(unit: Unit, values: Values, inner: Tensor) -> Tensor:
    """Return scale * (U diag(S) inner) + shift, (N, Co, h, w)."""
    groups = unit.geometry.groups
    factor = _blocks(values.U, groups) * values.S.view(groups, 1, -1) * values.scale.view(groups, -1, 1)
    kernel = factor.reshape(*values.U.shape, 1, 1).to(inner.dtype)
    return F.conv2d(inner, kernel, values.shift.to(inner.dtype), groups=groups)


def whole(unit: Unit, values: Values, x: Tensor) -> Tensor:
    """Run both steps, as one convolution unless composing the weight costs more than it saves."""
    out, rank = values.U.shape
    fan_in = values.V[0].numel()
    stride = unit.geometry.stride
    positions = x.shape[0] * (x.shape[2] // stride[0]) * (x.shape[3] // stride[1])
    if positions * (rank * fan_in + out * rank - out * fan_in) < out * rank * fan_in:
        return left(unit, values, right(unit, values, x))
    weight = rebuild(values.U, values.S, values.V, unit.geometry.groups) * values.scale.view(-1, 1, 1, 1)
    return unit.geometry.run(x, weight.to(x.dtype), values.shift.to(x.dtype))


def left_back(unit: Unit, values: Values, g: Tensor) -> Tensor:
    """Return h = U^T (scale g), (N, groups * R, h, w), for a gradient g of the output."""
    groups, (out, rank) = unit.geometry.groups, values.U.shape
    factor = _blocks(values.U, groups) * values.scale.view(groups, -1, 1)
    kernel = factor.transpose(1, 2).reshape(groups * rank, out // groups, 1, 1)
    return F.conv2d(g, kernel.to(g.dtype), groups=groups)


def right_back(unit: Unit, values: Values, h: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the input gradient V^T * (S h), (N, Ci, H, W), for an input of the given shape."""
    geometry, (height, width) = unit.geometry, values.V.shape[2:]
    kernel = (values.V * values.S.view(-1, 1, 1, 1)).to(h.dtype)
    padding = cast(tuple[int, int], geometry.padding)
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


def _blocks(U: Tensor, groups: int) -> Tensor:
    return U.view(groups, -1, U.shape[1])
