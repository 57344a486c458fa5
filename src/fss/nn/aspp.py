"""Atrous spatial pyramid pooling without normalisation, as in BAM's meta learner and CANet's decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fss.nn.dropout import SharedDropout2d

RATES = (6, 12, 18)


class ASPP(nn.Module):
    """Five parallel branches: global average, 1x1, and three dilated 3x3 convolutions, each with bias and ReLU.

    Weights use He normal initialisation (fan-in); biases keep PyTorch's default.
    """

    def __init__(self, channels: int, dropout: float = 0.0) -> None:
        """Build the branches.

        Args:
            channels: input channels, and output channels of each branch.
            dropout: share of the channels of a branch dropped in training; 0 omits the modules.
        """
        super().__init__()
        convs = [nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)]
        convs += [nn.Conv2d(channels, channels, 3, padding=r, dilation=r) for r in RATES]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight)
        drop = [SharedDropout2d(dropout)] if dropout > 0 else []
        self.branches = nn.ModuleList(nn.Sequential(conv, nn.ReLU(inplace=True), *drop) for conv in convs)

    def forward(self, x: Tensor) -> Tensor:
        """Run the branches.

        Args:
            x: (N, C, h, w).

        Returns:
            Concatenated branch outputs, global first, (N, 5C, h, w).
        """
        pooled = self.branches[0](x.mean(dim=(2, 3), keepdim=True)).expand_as(x)
        return torch.cat([pooled, *(branch(x) for branch in self.branches[1:])], dim=1)
