"""Pyramid pooling of PSPNet (arXiv 1612.01105)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fss.nn.resize import up

BINS = (1, 2, 3, 6)


class PPM(nn.Module):
    """Pool to several grid sizes, reduce, resize back, and concatenate with the input.

    Parameter names are those of the release: ``features.i.1`` (convolution) and ``features.i.2`` (norm).
    """

    def __init__(self, channels: int, bins: Sequence[int] = BINS) -> None:
        """Build one branch per grid size.

        Args:
            channels: input channels; all branches together add as many, so the output has twice as many.
            bins: sides of the grids.
        """
        super().__init__()
        reduced = channels // len(bins)
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(side),
                nn.Conv2d(channels, reduced, 1, bias=False),
                nn.BatchNorm2d(reduced),
                nn.ReLU(inplace=True),
            )
            for side in bins
        )
        self.out_channels = channels + reduced * len(bins)

    def forward(self, x: Tensor) -> Tensor:
        """Add context.

        Args:
            x: (N, C, h, w).

        Returns:
            The input, then the branches in the order of their grids, (N, out_channels, h, w).
        """
        size = (x.shape[-2], x.shape[-1])
        return torch.cat([x, *(up(branch(x), size) for branch in self.features)], dim=1)
