"""Factored layers that replace convolutions and linear layers while a strategy is injected."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.finetune.layers.geometry import ConvGeometry, Geometry, LinearGeometry
from fss.finetune.layers.svd import decompose, full_rank, rebuild, rounded_rank
from fss.finetune.layers.tuned import TunedLayer


class FactoredLayer(TunedLayer):
    """A layer whose weight is kept as W = U diag(s) V, where s is S, or S exp(p) after :meth:`make_residual`.

    Attributes:
        U: left factor, (Co, R).
        S: diagonal, (groups * R).
        V: right factor, (groups * R, ...), with the trailing dimensions of the plain weight (Co, ...).
        p: logarithm of the residual diagonal S', (groups * R), or None.
        bias: the plain layer's bias, (Co), or None.
        lean: how the layer is applied with little memory for the backward pass; None: by :meth:`formula`. Set by
            :func:`fss.finetune.chains.fuse.fuse`.
    """

    FACTORS: ClassVar[tuple[str, str, str]] = ("U", "S", "V")

    p: nn.Parameter | None
    bias: Tensor | None
    lean: Callable[[FactoredLayer, Tensor], Tensor] | None = None

    def __init__(self, geometry: Geometry, U: Tensor, S: Tensor, V: Tensor, bias: Tensor | None) -> None:
        """Take over a layer's geometry and bias.

        Args:
            geometry: the plain layer without its values.
            U: (Co, R).
            S: (groups * R).
            V: (groups * R, ...).
            bias: (Co), or None.
        """
        super().__init__()
        self.geometry = geometry
        self.U = nn.Parameter(U)
        self.S = nn.Parameter(S)
        self.V = nn.Parameter(V)
        self.register_parameter("p", None)
        self.bias = bias
        self.answer(geometry.facts((U.shape[0], *V.shape[1:])))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: input of the plain layer.

        Returns:
            Output of the plain layer.
        """
        return self.formula(x) if self.lean is None else self.lean(self, x)

    @abstractmethod
    def formula(self, x: Tensor) -> Tensor:
        """Apply the layer operation by operation, which any part of it can train with."""

    def make_residual(self) -> None:
        """Multiply S by S' = exp(p), p = 0 at first."""
        self.p = nn.Parameter(torch.zeros_like(self.S))

    @property
    def values(self) -> Tensor:
        """The diagonal between U and V, (groups * R)."""
        return self.S if self.p is None else self.S * self.p.exp()

    @property
    def weight(self) -> Tensor:
        """The plain layer's weight."""
        return rebuild(self.U, self.values, self.V, self.geometry.groups)

    @property
    def full_rank(self) -> int:
        """Exact rank of the plain weight, over all groups."""
        groups = self.geometry.groups
        return groups * min(self.U.shape[0] // groups, self.V[0].numel())

    @property
    def plain_size(self) -> int:
        """Number of values of the plain layer's weight and bias."""
        bias = 0 if self.bias is None else self.bias.numel()
        return self.U.shape[0] * self.V[0].numel() + bias

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Return a plain layer with equal output."""
        return self.geometry.build(self.weight, self.bias)


class SVFConv2d(FactoredLayer):
    """A convolution kept as factors: y = U diag(S) (V * x) + bias.

    SVF paper, section 3.2 (arXiv 2206.06122). ``V`` carries kernel, stride, padding, dilation and groups; ``U`` is a
    1x1 convolution. ``S`` is multiplied into ``U``, which equals the release's three steps (V, scale, U) and saves one
    activation. Where every output has a filter and a group of its own, as in depthwise convolutions, U and S are one
    factor per filter, and the composed filters are applied in one step.

    Attributes:
        U: left singular vectors, (Co, R).
        S: singular values, (groups * R).
        V: right singular vectors, (groups * R, Ci / groups, k, k).
        bias: the convolution's bias, (Co), or None.
    """

    geometry: ConvGeometry

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, rank_rounding: int = 1) -> Self:
        """Decompose a convolution.

        Args:
            conv: any zero-padded Conv2d: strided, dilated, grouped, with or without bias.
            rank_rounding: round the rank down to a multiple of this; 1 is exact.

        Returns:
            A layer with equal output (up to rounding, if the rank is exact).

        Raises:
            FssError: if the convolution's padding mode is not ``zeros``, or its class computes something else.
        """
        geometry = ConvGeometry.of(conv)
        rank = rounded_rank(full_rank(conv.weight, conv.groups), rank_rounding)
        return cls(geometry, *decompose(conv.weight, rank, conv.groups), conv.bias)

    @property
    def scales_filters(self) -> bool:
        """Whether U and S are one factor per filter: every output has a group of its own."""
        return self.geometry.groups == self.U.shape[0] == self.V.shape[0]

    def formula(self, x: Tensor) -> Tensor:
        """Convolve, (N, Ci, H, W) to (N, Co, h, w)."""
        if self.scales_filters:
            return self.geometry.run(x, self.weight, self.bias)
        g = self.geometry.groups
        inner = self.geometry.run(x, self.V, None)
        left = self.U.view(g, -1, self.U.shape[1]) * self.values.view(g, 1, -1)
        return self.geometry.lift(inner, left.reshape(self.U.shape), self.bias)


class SVFLinear(FactoredLayer):
    """A linear layer kept as factors: y = U diag(S) V x + bias.

    Attributes:
        U: left singular vectors, (Co, R).
        S: singular values, (groups * R); groups > 1 stack several matrices in one weight, as in attention.
        V: right singular vectors, (groups * R, Ci).
        bias: the layer's bias, (Co), or None.
    """

    geometry: LinearGeometry

    def formula(self, x: Tensor) -> Tensor:
        """Apply the layer, (..., Ci) to (..., Co); only V x is saved for the backward pass while U and V are frozen."""
        inner = self.geometry.run(x, self.V, None) * self.values
        groups = self.geometry.groups
        if groups == 1:
            return self.geometry.lift(inner, self.U, self.bias)
        y = torch.cat([F.linear(i, u) for i, u in zip(inner.chunk(groups, -1), self.U.chunk(groups), strict=True)], -1)
        return y if self.bias is None else y + self.bias
