"""Plain layers without their values: enough to apply them with other values and to rebuild them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.layers.formula import is_stock, plain_class

_FAST_PADDING = 6
"""Depthwise convolutions with more take four times as long in oneDNN as on an input that was padded before."""


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution without its values.

    Attributes:
        stride: (vertical, horizontal).
        padding: likewise, or torch's ``same`` / ``valid``.
        dilation: likewise.
        groups: number of groups.
        kind: class of the plain layer.
    """

    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int
    kind: type[nn.Conv2d] = nn.Conv2d

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """Read a convolution's geometry.

        Args:
            conv: the convolution.

        Returns:
            Its geometry.

        Raises:
            FssError: if its padding mode is not ``zeros``, or its class computes something else than Conv2d.
        """
        if conv.padding_mode != "zeros":
            raise FssError(
                f"A convolution of padding_mode={conv.padding_mode!r} cannot be replaced, only one of 'zeros'. Apply a "
                "strategy to its model: it changes the weight and leaves the layer where it is."
            )
        if not is_stock(conv):
            raise FssError(
                f"{plain_class(conv).__name__} is not known to compute what torch.nn.Conv2d does, so it cannot be "
                "replaced. Apply a strategy to its model: it changes the weight and leaves the layer where it is."
            )
        padding = conv.padding if isinstance(conv.padding, str) else (conv.padding[0], conv.padding[1])
        stride, dilation = (conv.stride[0], conv.stride[1]), (conv.dilation[0], conv.dilation[1])
        return cls(stride, padding, dilation, conv.groups, cast(type[nn.Conv2d], plain_class(conv)))

    def facts(self, shape: Sequence[int]) -> dict[str, Any]:
        """Return the public numbers of the plain layer, which other modules may read.

        Args:
            shape: shape of its weight, (Co, Ci / groups, k, k).

        Returns:
            Attribute -> value.
        """
        return {
            "in_channels": shape[1] * self.groups,
            "out_channels": shape[0],
            "kernel_size": (shape[2], shape[3]),
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": "zeros",
            "transposed": False,
            "output_padding": (0, 0),
        }

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with the given values.

        Args:
            x: (N, Ci, H, W).
            weight: (Co, Ci / groups, k, k).
            bias: (Co), or None.

        Returns:
            (N, Co, h, w).
        """
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def lift(self, inner: Tensor, left: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the left of two factors, as a 1x1 convolution.

        Args:
            inner: (N, groups * R, h, w), output of :meth:`run` with the right factor.
            left: (Co, R).
            bias: (Co), or None.

        Returns:
            (N, Co, h, w).
        """
        return F.conv2d(inner, left.reshape(*left.shape, 1, 1), bias, groups=self.groups)

    def build(self, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
        """Build a convolution with this geometry.

        Args:
            weight: its values, (Co, Ci / groups, k, k).
            bias: (Co), or None.

        Returns:
            A plain convolution with copies of the values.
        """
        conv = nn.Conv2d(
            weight.shape[1] * self.groups,
            weight.shape[0],
            (weight.shape[2], weight.shape[3]),
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            bias=bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        conv.__class__ = self.kind  # a stock layer of another class has no other values
        _fill(conv, weight, bias)
        return conv


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] | str = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Do what torch's conv2d does, on a CPU without its slow path for depthwise filters with much padding.

    Args:
        x: (N, Ci, H, W).
        weight: (Co, Ci / groups, k, k).
        bias: (Co), or None.
        stride: (vertical, horizontal).
        padding: likewise, or torch's ``same`` / ``valid``.
        dilation: likewise.
        groups: number of groups.

    Returns:
        (N, Co, h, w).
    """
    if (
        not isinstance(padding, str)
        and max(padding) > _FAST_PADDING
        and groups == x.shape[1]
        and x.device.type == "cpu"
    ):
        beyond = [max(p - _FAST_PADDING, 0) for p in padding]
        x = F.pad(x, (beyond[1], beyond[1], beyond[0], beyond[0]))
        padding = (padding[0] - beyond[0], padding[1] - beyond[1])
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


@dataclass(frozen=True)
class LinearGeometry:
    """A linear layer without its values.

    Attributes:
        groups: matrices stacked along the output in one weight (attention stacks query, key and value); 1 elsewhere.
        kind: class of the plain layer.
    """

    groups: int = 1
    kind: type[nn.Linear] = nn.Linear

    def facts(self, shape: Sequence[int]) -> dict[str, Any]:
        """Return the public numbers of the plain layer, which other modules may read.

        Args:
            shape: shape of its weight, (Co, Ci).

        Returns:
            Attribute -> value.
        """
        return {"in_features": shape[1], "out_features": shape[0]}

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the given values.

        Args:
            x: (..., Ci).
            weight: (Co, Ci).
            bias: (Co), or None.

        Returns:
            (..., Co).
        """
        return F.linear(x, weight, bias)

    def lift(self, inner: Tensor, left: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the left of two factors of an unstacked matrix.

        Args:
            inner: (..., R), output of :meth:`run` with the right factor.
            left: (Co, R).
            bias: (Co), or None.

        Returns:
            (..., Co).
        """
        return F.linear(inner, left, bias)

    def build(self, weight: Tensor, bias: Tensor | None) -> nn.Linear:
        """Build a linear layer.

        Args:
            weight: its values, (Co, Ci).
            bias: (Co), or None.

        Returns:
            A plain linear layer with copies of the values.
        """
        c_out, c_in = weight.shape
        linear = nn.Linear(c_in, c_out, bias=bias is not None, device=weight.device, dtype=weight.dtype)
        linear.__class__ = self.kind
        _fill(linear, weight, bias)
        return linear


@dataclass(frozen=True)
class OwnGeometry:
    """A layer that applies its weight in a way of its own; only the shape of the weight is known.

    Attributes:
        groups: blocks of the weight along the output that are matrices of their own.
        kind: class of the layer.
    """

    groups: int
    kind: type[nn.Module]

    def facts(self, shape: Sequence[int]) -> dict[str, Any]:
        """Return nothing: the layer itself stays where it is, with all of its attributes."""
        return {}

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> NoReturn:
        """Raise: only the layer itself can apply its weight."""
        raise self._refusal()

    def lift(self, inner: Tensor, left: Tensor, bias: Tensor | None) -> NoReturn:
        """Raise: a product of weights need not be a product of layers."""
        raise self._refusal()

    def build(self, weight: Tensor, bias: Tensor | None) -> NoReturn:
        """Raise: the layer itself receives the merged weight."""
        raise self._refusal()

    def _refusal(self) -> FssError:
        return FssError(
            f"{self.kind.__name__} is not known to compute what torch's own layer does, so nothing can stand in for "
            "it. Swap layers with fss.finetune.layers.swap.swap_layers, which then changes the weight alone."
        )


Geometry = ConvGeometry | LinearGeometry | OwnGeometry


@torch.no_grad()
def _fill(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight.copy_(weight)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)


def geometry_of(layer: nn.Conv2d | nn.Linear) -> Geometry:
    """Read a plain layer's geometry.

    Args:
        layer: convolution or linear layer.

    Returns:
        Its geometry; :class:`OwnGeometry` if it is not known to compute what torch's own layer does.
    """
    if not is_stock(layer):
        return OwnGeometry(layer.groups if isinstance(layer, nn.Conv2d) else 1, plain_class(layer))
    if isinstance(layer, nn.Conv2d):
        return ConvGeometry.of(layer)
    return LinearGeometry(kind=cast(type[nn.Linear], plain_class(layer)))
