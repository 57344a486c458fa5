"""Plain layers without their values: enough to apply them with other values and to rebuild them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.errors import FssError


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution without its values.

    Attributes:
        stride: (vertical, horizontal).
        padding: likewise, or torch's ``same`` / ``valid``.
        dilation: likewise.
        groups: number of groups.
    """

    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """Read a convolution's geometry.

        Args:
            conv: the convolution.

        Returns:
            Its geometry.

        Raises:
            FssError: if its padding mode is not ``zeros``.
        """
        if conv.padding_mode != "zeros":
            raise FssError(
                f"padding_mode={conv.padding_mode!r} cannot be decomposed; only 'zeros' is supported. Leave the stage "
                "of this convolution out of finetune.stages."
            )
        padding = conv.padding if isinstance(conv.padding, str) else (conv.padding[0], conv.padding[1])
        stride, dilation = (conv.stride[0], conv.stride[1]), (conv.dilation[0], conv.dilation[1])
        return cls(stride, padding, dilation, conv.groups)

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with the given values.

        Args:
            x: (N, Ci, H, W).
            weight: (Co, Ci / groups, k, k).
            bias: (Co), or None.

        Returns:
            (N, Co, h, w).
        """
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

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
        _fill(conv, weight, bias)
        return conv


@dataclass(frozen=True)
class LinearGeometry:
    """A linear layer without its values.

    Attributes:
        groups: matrices stacked along the output in one weight (attention stacks query, key and value); 1 elsewhere.
    """

    groups: int = 1

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
        _fill(linear, weight, bias)
        return linear


@torch.no_grad()
def _fill(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight.copy_(weight)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)


def geometry_of(layer: nn.Conv2d | nn.Linear) -> ConvGeometry | LinearGeometry:
    """Read a plain layer's geometry.

    Args:
        layer: convolution or linear layer.

    Returns:
        Its geometry.
    """
    return ConvGeometry.of(layer) if isinstance(layer, nn.Conv2d) else LinearGeometry()
