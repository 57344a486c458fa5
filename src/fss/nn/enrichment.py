"""The feature enrichment module of PFENet (arXiv 2008.01449, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.nn.conv_stacks import classifier, reduction, refinement
from fss.nn.resize import up


def side(bin_: float, height: int) -> int:
    """Return the side length of one grid.

    Args:
        bin_: above 1: the side itself; else a fraction of the height, rounded down.
        height: height of the feature map.

    Returns:
        At least 1.
    """
    return int(bin_) if bin_ > 1 else max(1, int(height * bin_))


class FeatureEnrichment(nn.Module):
    """Merges query, prototype and prior on several grids, fine to coarse, passing each grid's result to the next.

    Grids may be finer than the feature map: the SVF release uses 60 bins with VGG's 30 x 30 map.
    """

    def __init__(self, width: int, bins: Sequence[float]) -> None:
        """Build one branch per grid.

        Args:
            width: channels of query and prototype.
            bins: sides of the grids, fine to coarse, see :func:`side`.
        """
        super().__init__()
        self.bins = tuple(bins)
        self.init_merge = nn.ModuleList(reduction(2 * width + 1, width) for _ in bins)
        self.alpha_conv = nn.ModuleList(reduction(2 * width, width) for _ in bins[1:])
        self.beta_conv = nn.ModuleList(refinement(width) for _ in bins)
        self.inner_cls = nn.ModuleList(classifier(width) for _ in bins)

    def forward(self, query: Tensor, prototype: Tensor, prior: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Merge on every grid.

        Args:
            query: (B, C, h, w).
            prototype: one of each query, (B, C, 1, 1), or of each position, (B, C, h, w).
            prior: (B, 1, h, w).

        Returns:
            The concatenated results of all grids, (B, bins * C, h, w), and the logits of each grid, (B, 2, b, b).
        """
        size = (query.shape[-2], query.shape[-1])
        results: list[Tensor] = []
        logits: list[Tensor] = []
        for i, bin_ in enumerate(self.bins):
            b = side(bin_, size[0])
            pooled = F.adaptive_avg_pool2d(query, b)
            single = prototype.shape[-2:] == (1, 1)
            own = prototype.expand_as(pooled) if single else F.adaptive_avg_pool2d(prototype, b)
            y = self.init_merge[i](torch.cat([pooled, own, up(prior, b)], dim=1))
            if i > 0:
                finer = up(results[-1], b)  # from the query's size, as in the release
                y = self.alpha_conv[i - 1](torch.cat([y, finer], dim=1)) + y
            y = self.beta_conv[i](y) + y
            logits.append(self.inner_cls[i](y))
            results.append(up(y, size))
        return torch.cat(results, dim=1), logits
