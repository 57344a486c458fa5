"""Dropout of channels and of single values that does not depend on how a batch is split among processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fss.nn.distributed import episode_generators, rank_and_world


class SharedDropout2d(nn.Dropout2d):
    """``nn.Dropout2d`` with one mask for the global batch.

    With equal seeds every process draws the mask of the global batch and takes the rows of its own episodes, every
    W-th one. With one process the values equal those of ``nn.Dropout2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop channels in training.

        Args:
            input: one row per episode, (B, C, h, w).

        Returns:
            The same shape.
        """
        if not self.training or self.p == 0:
            return input
        if self.p == 1:
            return input * 0
        rank, world = rank_and_world()
        keep = input.new_empty((input.shape[0] * world, input.shape[1], 1, 1)).bernoulli_(1 - self.p)
        return input * keep.div_(1 - self.p)[rank::world]


class SharedDropout(nn.Dropout):
    """``nn.Dropout`` whose mask of an episode depends only on the place of the episode in the global batch.

    :class:`SharedDropout2d` draws the masks of all processes; those of attention weights are too large for that, so
    each episode has its own generator.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop single values in training.

        Args:
            input: one row per episode, (B, ...).

        Returns:
            The same shape.
        """
        if not self.training or self.p == 0:
            return input
        if self.p == 1:
            return input * 0
        keep = torch.empty_like(input)
        for row, generator in zip(keep, episode_generators(len(input), input.device), strict=True):
            row.bernoulli_(1 - self.p, generator=generator)
        return input * keep.div_(1 - self.p)
