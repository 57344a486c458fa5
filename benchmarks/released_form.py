"""SVF as its release computes it: three modules per layer, and norms and activations by themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.finetune.chains.fuse import fuse
from fss.finetune.layers.factored import SVFConv2d, SVFLinear
from fss.finetune.layers.surgery import LAST_STAGE, find
from fss.types import StagedBackbone


class ThreeSteps(nn.Module):
    """V, then S, then U; each step of a convolution keeps its input for the backward pass."""

    def __init__(self, layer: SVFConv2d) -> None:
        """Take over the factors.

        Args:
            layer: a factored convolution.
        """
        super().__init__()
        g = layer.geometry
        rank = len(layer.S)
        self.conv_V = nn.Conv2d(
            layer.V.shape[1] * g.groups,
            rank,
            tuple(layer.V.shape[2:]),
            g.stride,
            g.padding,
            g.dilation,
            g.groups,
            bias=False,  # type: ignore[arg-type]
        )
        self.vector_S = nn.Parameter(layer.S.detach().clone().view(1, rank, 1, 1))
        self.conv_U = nn.Conv2d(rank, len(layer.U), 1, groups=g.groups, bias=layer.bias is not None)
        self.conv_V.weight.data.copy_(layer.V)
        self.conv_U.weight.data.copy_(layer.U[:, :, None, None])
        if layer.bias is not None:
            assert self.conv_U.bias is not None
            self.conv_U.bias.data.copy_(layer.bias)
        self.conv_V.requires_grad_(False)
        self.conv_U.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the three steps, (N, Ci, H, W) to (N, Co, h, w)."""
        y: Tensor = self.conv_U(self.conv_V(x) * self.vector_S)
        return y


class ThreeLinearSteps(nn.Module):
    """V, then S, then U of a linear layer; frozen matrices keep nothing, so that this keeps V x alone."""

    def __init__(self, layer: SVFLinear) -> None:
        """Take over the factors.

        Args:
            layer: a factored linear layer of one matrix.
        """
        super().__init__()
        self.V = nn.Parameter(layer.V.detach().clone(), requires_grad=False)
        self.vector_S = nn.Parameter(layer.S.detach().clone())
        self.U = nn.Parameter(layer.U.detach().clone(), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the three steps, (..., Ci) to (..., Co)."""
        return F.linear(F.linear(x, self.V) * self.vector_S, self.U, self.bias)


@torch.no_grad()
def as_released(backbone: StagedBackbone) -> None:
    """Replace the factored layers of a backbone by the release's modules, and let every block run as it is written.

    Layers that apply their weight in a way of their own keep composing it.

    Args:
        backbone: after ``finetune=svf``; changed in place.
    """
    fuse(backbone, "plain")
    for site in find(backbone, range(LAST_STAGE + 1), lambda m: isinstance(m, SVFConv2d | SVFLinear)):
        layer = site.module
        site.put(ThreeSteps(layer) if isinstance(layer, SVFConv2d) else ThreeLinearSteps(layer))  # type: ignore[arg-type]
    assert not find(backbone, range(LAST_STAGE + 1), lambda m: isinstance(m, SVFConv2d | SVFLinear))
