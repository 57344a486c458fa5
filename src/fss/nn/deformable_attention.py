"""Deformable self-attention on one feature map, in plain PyTorch (Deformable DETR, arXiv 2010.04159, section 4.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.nn.dropout import SharedDropout, SharedDropout2d


class DeformableAttention(nn.Module):
    """Each position gathers values from a few points around it, whose offsets and weights it predicts."""

    def __init__(self, channels: int, heads: int, points: int, dropout: float) -> None:
        """Build the projections; offsets start along one direction per head, with lengths 1, 2, ...

        Args:
            channels: channels of the tokens, a multiple of ``heads``.
            heads: number of heads.
            points: points that each head samples.
            dropout: share of value tokens, and of attention weights, dropped in training.
        """
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets = nn.Linear(channels, heads * points * 2)
        self.weights = nn.Linear(channels, heads * points)
        self.value = nn.Linear(channels, channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)
        self.drop_tokens = SharedDropout2d(dropout)
        self.drop_weights = SharedDropout(dropout)
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        lengths = torch.arange(1, points + 1)
        with torch.no_grad():
            nn.init.zeros_(self.offsets.weight)
            self.offsets.bias.copy_((directions[:, None] * lengths[:, None]).flatten())
            nn.init.zeros_(self.weights.weight)
            nn.init.zeros_(self.weights.bias)
        nn.init.xavier_uniform_(self.value.weight)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(self, query: Tensor, values: Tensor, padded: Tensor) -> Tensor:
        """Attend.

        Args:
            query: tokens that predict offsets and weights, (B, h w, C).
            values: tokens that are sampled, bilinearly and with zeros outside, (B, h w, C).
            padded: cells in the padding of the image, whose value is zero, (B, h, w).

        Returns:
            (B, h w, C).
        """
        batch, count, channels = values.shape
        height, width = padded.shape[1:]
        value = self.value(values).masked_fill(padded.flatten(1)[..., None], 0.0)
        value = self.drop_tokens(value[..., None])[..., 0]
        maps = value.mT.reshape(batch * self.heads, channels // self.heads, height, width)
        offsets = self.offsets(query).reshape(batch, count, self.heads, self.points, 2).transpose(1, 2)
        weights = self.weights(query).reshape(batch, count, self.heads, self.points).softmax(dim=-1)
        weights = self.drop_weights(weights).transpose(1, 2)
        size = torch.tensor([width, height], dtype=offsets.dtype, device=offsets.device)
        at = _centres(height, width, offsets)[:, None] + offsets / size  # (B, heads, N, points, 2) in [0, 1]
        sampled = F.grid_sample(maps, (2 * at - 1).flatten(0, 1), align_corners=False)
        gathered = (sampled * weights.flatten(0, 1)[:, None]).sum(dim=-1)  # (B heads, C / heads, N)
        result: Tensor = self.output(gathered.reshape(batch, channels, count).mT)
        return result


def _centres(height: int, width: int, like: Tensor) -> Tensor:
    """Return the centres (x, y) of the cells in row-major order, (h w, 2) in [0, 1]."""
    rows = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
    columns = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)
