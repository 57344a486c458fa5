"""Learned weights of K supports (BAM, arXiv 2203.07615, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ShotWeights(nn.Sequential):
    """Computes the weight of every support from its style distance.

    The distances are sorted first, so that the order of the supports does not matter.
    """

    def __init__(self, shot: int, hidden: int = 2, restore: bool = True) -> None:
        """Build the network over the shot axis.

        Args:
            shot: number of supports K, at least 2.
            hidden: width between its two layers; 0: a single layer without bias, initialised to the mean.
            restore: return the weights in the order of the supports; False: in that of ascending distances, as HDMNet's
                release leaves them, so that they belong to other supports.
        """
        if hidden:
            super().__init__(nn.Conv2d(shot, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, shot, 1))
        else:
            single = nn.Conv2d(shot, shot, 1, bias=False)
            nn.init.constant_(single.weight, 1 / shot)
            super().__init__(single)
        self.restore = restore

    def forward(self, distances: Tensor) -> Tensor:
        """Compute the weights.

        Args:
            distances: psi of every support, (B, K).

        Returns:
            Weights that sum to 1, (B, K).
        """
        ascending, order = distances.sort(dim=1)
        scores = ascending[..., None, None]
        for layer in self:
            scores = layer(scores)
        weights = torch.softmax(scores[..., 0, 0], dim=1)
        return weights.gather(1, order.argsort(dim=1)) if self.restore else weights
