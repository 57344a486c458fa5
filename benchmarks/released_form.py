"""SVF as its release computes it: three modules per convolution, and batch norm by itself."""

from __future__ import annotations

from torch import Tensor, nn

from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.layers.factorise import factored_layers
from fss.finetune.layers.surgery import LAST_STAGE, find
from fss.types import StagedBackbone


class ThreeSteps(nn.Module):
    """V, then S, then U; each step keeps its input for the backward pass."""

    def __init__(self, layer: SVFConv2d) -> None:
        """Take over the factors.

        Args:
            layer: a factored convolution without groups.
        """
        super().__init__()
        g = layer.geometry
        rank = len(layer.S)
        self.conv_V = nn.Conv2d(
            layer.V.shape[1],
            rank,
            tuple(layer.V.shape[2:]),
            g.stride,
            g.padding,
            g.dilation,
            bias=False,  # type: ignore[arg-type]
        )
        self.vector_S = nn.Parameter(layer.S.detach().clone().view(1, rank, 1, 1))
        self.conv_U = nn.Conv2d(rank, len(layer.U), 1, bias=layer.bias is not None)
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


def as_released(backbone: StagedBackbone) -> None:
    """Replace the factored convolutions of a backbone by the release's modules.

    Args:
        backbone: after ``finetune=svf``; changed in place.
    """
    for site in find(backbone, range(LAST_STAGE + 1), lambda m: isinstance(m, SVFConv2d)):
        assert isinstance(site.module, SVFConv2d)
        site.put(ThreeSteps(site.module))
    assert not list(factored_layers(backbone, range(LAST_STAGE + 1)))
