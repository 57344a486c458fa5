"""Transformer layers of HDMNet (Peng et al., CVPR 2023) on maps: self-attention and its feed-forward network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fss.nn.dropout import SharedDropout

EPS = 1e-6
"""Of every layer norm (released constant)."""
EXPANSION = 4
"""Channels within a feed-forward network, relative to those outside."""


class MapNorm(nn.LayerNorm):
    """Layer norm over the channels of every position of a map."""

    def __init__(self, channels: int) -> None:
        """Build the layer.

        Args:
            channels: channels of the map.
        """
        super().__init__(channels, eps=EPS)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise.

        Args:
            input: (N, C, h, w).

        Returns:
            The same shape.
        """
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class Projections(nn.Module):
    """Query, key, value and output projections without bias of an attention with several heads."""

    def __init__(self, channels: int, heads: int) -> None:
        """Build the layers.

        Args:
            channels: channels of the tokens, a multiple of ``heads``.
            heads: number of heads.
        """
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)

    def split(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, C) by head, (B, heads, N, C / heads)."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)

    def joined(self, by_head: Tensor) -> Tensor:
        """Return the output projection of tokens by head, (B, N, C)."""
        projected: Tensor = self.output(by_head.transpose(1, 2).flatten(2))
        return projected


class SelfAttention(Projections):
    """Attention of every position of a map to the positions of a smaller copy of it.

    Attributes:
        reduction: positions per side that a key stands for.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        """Build the layers.

        Args:
            channels: channels of the map, a multiple of ``heads``.
            heads: number of heads.
            reduction: see the attribute; 1: keys are the positions themselves.
        """
        super().__init__(channels, heads)
        self.reduction = reduction
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.reduce_norm = MapNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; rows and columns that fill no whole key are no part of any.

        Args:
            x: (B, C, h, w); if it is smaller than a key, the key is completed by zeros.

        Returns:
            (B, C, h, w).
        """
        q, keys = x.flatten(2).mT, x
        if self.reduction > 1:
            height, width = x.shape[-2:]
            keys = F.pad(x, (0, max(self.reduction - width, 0), 0, max(self.reduction - height, 0)))
            keys = self.reduce_norm(self.reduce(keys))
        tokens = keys.flatten(2).mT
        attended = F.scaled_dot_product_attention(
            self.split(self.query(q)), self.split(self.key(tokens)), self.split(self.value(tokens))
        )
        return self.joined(attended).mT.reshape(x.shape)


class MixFeedForward(nn.Sequential):
    """Feed-forward network with a depthwise convolution in its middle, after which nothing tells positions apart."""

    def __init__(self, channels: int, dropout: float) -> None:
        """Build the layers.

        Args:
            channels: channels of the map.
            dropout: share of values dropped in training.
        """
        wide = EXPANSION * channels
        super().__init__(
            nn.Conv2d(channels, wide, 1),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            nn.GELU(),
            SharedDropout(dropout),
            nn.Conv2d(wide, channels, 1),
            SharedDropout(dropout),
        )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward network, each on a normalised map and added to it."""

    def __init__(self, channels: int, heads: int, reduction: int, dropout: float) -> None:
        """Build the layers.

        Args:
            channels: channels of the map.
            heads: heads of the attention.
            reduction: see :class:`SelfAttention`.
            dropout: share of values dropped in training.
        """
        super().__init__()
        self.norm1 = MapNorm(channels)
        self.attention = SelfAttention(channels, heads, reduction)
        self.dropout = SharedDropout(dropout)
        self.norm2 = MapNorm(channels)
        self.ffn = MixFeedForward(channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Transform a map.

        Args:
            x: (B, C, h, w).

        Returns:
            The same shape.
        """
        x = x + self.dropout(self.attention(self.norm1(x)))
        transformed: Tensor = x + self.ffn(self.norm2(x))
        return transformed


class DownStage(nn.Module):
    """Encode a map at one resolution: a convolution that may halve it, two encoder layers, a norm."""

    def __init__(self, channels: int, heads: int, reduction: int, dropout: float, halve: bool) -> None:
        """Build the layers.

        Args:
            channels: channels of the map.
            heads: heads of the attention.
            reduction: see :class:`SelfAttention`.
            dropout: share of values dropped in training.
            halve: give half the resolution.
        """
        super().__init__()
        kernel = 3 if halve else 1
        self.embed = nn.Conv2d(channels, channels, kernel, stride=2 if halve else 1, padding=kernel // 2)
        self.embed_norm = MapNorm(channels)
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, reduction, dropout) for _ in range(2))
        self.norm = MapNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Encode.

        Args:
            x: (B, C, h, w).

        Returns:
            (B, C, h, w), or (B, C, ceil(h / 2), ceil(w / 2)).
        """
        x = self.embed_norm(self.embed(x))
        for layer in self.layers:
            x = layer(x)
        encoded: Tensor = self.norm(x)
        return encoded
