"""The layer that replaces a convolution under SVF."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.finetune.svd import decompose, full_rank, rebuild, rounded_rank


@dataclass(frozen=True)
class ConvGeometry:
    """Everything about a convolution but its weights.

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
        """Read a convolution's geometry."""
        padding = conv.padding if isinstance(conv.padding, str) else (conv.padding[0], conv.padding[1])
        stride, dilation = (conv.stride[0], conv.stride[1]), (conv.dilation[0], conv.dilation[1])
        return cls(stride, padding, dilation, conv.groups)


class TunedLayer(nn.Module, ABC):
    """A layer that a strategy put in the place of a plain one and can turn back into one."""

    @abstractmethod
    def merge(self) -> nn.Module:
        """Return a plain layer with equal output."""

    @property
    @abstractmethod
    def plain_size(self) -> int:
        """Number of parameter values of the plain layer."""


class SVFConv2d(TunedLayer):
    """A convolution kept as its factors: y = U diag(S) (V * x) + bias.

    SVF paper, section 3.2 (arXiv 2206.06122). ``V`` carries kernel, stride, padding, dilation and groups; ``U`` is a
    1x1 convolution. ``S`` is scaled into ``U``, which equals the release's three steps (V, scale, U) and saves one
    activation.

    Attributes:
        U: left singular vectors, (Co, R).
        S: singular values, (groups * R).
        V: right singular vectors, (groups * R, Ci / groups, k, k).
        bias: the convolution's bias, (Co), or None.
    """

    FACTORS: ClassVar[tuple[str, str, str]] = ("U", "S", "V")

    def __init__(self, conv: nn.Conv2d, U: Tensor, S: Tensor, V: Tensor) -> None:
        """Take over a convolution's geometry.

        Args:
            conv: source of stride, padding, dilation, groups and bias.
            U: (Co, R).
            S: (groups * R).
            V: (groups * R, Ci / groups, k, k).
        """
        super().__init__()
        self.geometry = ConvGeometry.of(conv)
        self.U = nn.Parameter(U)
        self.S = nn.Parameter(S)
        self.V = nn.Parameter(V)
        self.bias = conv.bias

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, rank_rounding: int = 1) -> Self:
        """Decompose a convolution.

        Args:
            conv: any zero-padded Conv2d: strided, dilated, grouped, with or without bias.
            rank_rounding: keep the rank rounded down to this multiple; 1 is exact.

        Returns:
            A layer with equal output (up to rounding, if the rank is exact).

        Raises:
            ValueError: if the convolution pads with anything but zeros.
        """
        if conv.padding_mode != "zeros":
            raise ValueError(f"padding_mode={conv.padding_mode!r} cannot be decomposed; only 'zeros' is supported")
        rank = rounded_rank(full_rank(conv.weight, conv.groups), rank_rounding)
        return cls(conv, *decompose(conv.weight, rank, conv.groups))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (N, Ci, H, W).

        Returns:
            (N, Co, h, w).
        """
        g = self.geometry.groups
        inner = F.conv2d(x, self.V, None, self.geometry.stride, self.geometry.padding, self.geometry.dilation, g)
        left = self.U.view(g, -1, self.U.shape[1]) * self.S.view(g, 1, -1)
        return F.conv2d(inner, left.reshape(*self.U.shape, 1, 1), self.bias, groups=g)

    @property
    def plain_size(self) -> int:
        """Number of values of the convolution's weight and bias."""
        bias = 0 if self.bias is None else self.bias.numel()
        return self.U.shape[0] * self.V[0].numel() + bias

    @torch.no_grad()
    def merge(self) -> nn.Conv2d:
        """Return a plain convolution with equal output."""
        geometry = self.geometry
        weight = rebuild(self.U, self.S, self.V, geometry.groups)
        conv = nn.Conv2d(
            self.V.shape[1] * geometry.groups,
            self.U.shape[0],
            (self.V.shape[2], self.V.shape[3]),
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            geometry.groups,
            bias=self.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        conv.weight.copy_(weight)
        if conv.bias is not None and self.bias is not None:
            conv.bias.copy_(self.bias)
        return conv
