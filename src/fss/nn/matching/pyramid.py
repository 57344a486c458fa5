"""The transformer of HDMNet (CVPR 2023): encode at three resolutions, match, and decode from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.nn.matching.cross import MatchLayer
from fss.nn.matching.encoder import EXPANSION, DownStage
from fss.nn.resize import up

HEADS, REDUCTIONS, MATCH_HEADS = (2, 4, 8), (4, 2, 1), 2
"""Of self-attention by level, fine to coarse, and of the matching."""


class StillBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that never uses or updates batch statistics, whatever the mode of the module around it.

    HDMNet's release puts every batch norm of the network into evaluation mode, also those that train: with their
    statistics at 0 and 1 they are a scale and a shift of every channel.
    """

    def __init__(self, channels: int) -> None:
        """Build the layer.

        Args:
            channels: channels of the map.
        """
        super().__init__(channels)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode.

        Args:
            mode: ignored.

        Returns:
            The layer itself.
        """
        return super().train(False)


class MatchingTransformer(nn.Module):
    """Shared encoders of query and supports, cross attention at each of three resolutions, and a decoder."""

    def __init__(self, channels: int, dropout: float) -> None:
        """Build the layers.

        Args:
            channels: channels of the tokens, a multiple of 8.
            dropout: share of values dropped in training.
        """
        super().__init__()
        wide = EXPANSION * channels
        self.down = nn.ModuleList(
            DownStage(channels, heads, reduction, dropout, halve=level > 0)
            for level, (heads, reduction) in enumerate(zip(HEADS, REDUCTIONS, strict=True))
        )
        self.match = nn.ModuleList(MatchLayer(channels, MATCH_HEADS, dropout) for _ in HEADS)
        self.join = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels + 2, channels, 3, padding=1, bias=False),
                StillBatchNorm2d(channels),
                nn.ReLU(inplace=True),
            )
            for _ in HEADS
        )
        self.parse = nn.ModuleList(
            nn.Sequential(*_affine(channels, wide, channels), nn.ReLU(inplace=True)) for _ in HEADS
        )
        self.cls = nn.Sequential(*_affine(channels, wide, 2)[:-1])

    def forward(
        self, query: Tensor, supports: Sequence[Tensor], masks: Tensor, similarity: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Score the query.

        Args:
            query: tokens of the query as a map, (B, C, h, w).
            supports: those of the K supports, (B, C, r, s) each.
            masks: 1 on the object, 0 elsewhere, (B, K, H, W).
            similarity: two similarities of the query to the object, (B, 2, h, w).

        Returns:
            logits (B, 2, h, w), and of each resolution, coarse to fine, the mean similarity of the query's positions to
            the object, (B, h', w').
        """
        matched, similarities = [], []
        for down, match, join in zip(self.down, self.match, self.join, strict=True):
            query = down(query)
            supports = [down(support) for support in supports]  # shared dropout has a row per episode
            stacked = torch.stack(list(supports), dim=1)
            cells = F.interpolate(masks, size=stacked.shape[-2:], mode="nearest")
            x, found = match(query, stacked, cells)
            size = (x.shape[-2], x.shape[-1])
            matched.append(join(torch.cat([x, up(similarity, size)], dim=1)))
            similarities.append(found)
        x = self.parse[-1](matched[-1])
        for parse, finer in zip(self.parse[-2::-1], matched[-2::-1], strict=True):
            x = up(x, (finer.shape[-2], finer.shape[-1]), align_corners=False)
            x = x + parse(finer + x)
        return self.cls(x), similarities[::-1]


def _affine(channels: int, wide: int, out: int) -> list[nn.Module]:
    """Return three convolutions, each followed by a scale and shift of its channels."""
    return [
        nn.Conv2d(channels, wide, 1),
        StillBatchNorm2d(wide),
        nn.Conv2d(wide, wide, 3, padding=1),
        StillBatchNorm2d(wide),
        nn.Conv2d(wide, out, 1),
        StillBatchNorm2d(out),
    ]
