"""Cross attention of HDMNet (CVPR 2023): every support position is handed out over the query, by cosine similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.nn.dropout import SharedDropout
from fss.nn.matching.encoder import MapNorm, MixFeedForward, Projections

TEMPERATURE = 0.1
"""Cosines are divided by it (released constant)."""
OUTSIDE = -1e9
"""Score of the label's background, whose share is 0 as soon as the object covers a position (released constant)."""


class ObjectAttention(Projections):
    """Hand every support position of the object out over the positions of the query.

    The softmax runs over the query: a support position divides itself among the query positions that are similar to it,
    and a query position adds up what it is given. Support positions of the background give nothing, so they are left
    out before any similarity is computed, which changes nothing else.
    """

    def forward(self, query: Tensor, support: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            query: (B, N, C).
            support: (B, M, C).
            mask: 1 on the object, 0 on the background, (B, M).

        Returns:
            What the query is given (B, N, C), and its mean similarity to the object (B, N); both are 0 where the mask
            is empty.
        """
        most = max(int((mask > 0).sum(dim=1).max()), 1)
        order = mask.argsort(dim=1, descending=True, stable=True)[:, :most]
        support = support.gather(1, order[..., None].expand(-1, -1, support.shape[2]))
        kept = mask.gather(1, order)[:, None, None]  # 0 where an episode has fewer than the longest
        q = F.normalize(self.split(self.query(query)), dim=3)
        k = F.normalize(self.split(self.key(support)), dim=3)
        scores = q @ k.mT / TEMPERATURE  # (B, heads, N, M')
        given = (scores.softmax(dim=2) * kept) @ self.split(self.value(support))
        similarity = (scores * kept).sum(dim=3) / kept.sum(dim=3).clamp(min=1)
        return self.joined(given), similarity.mean(dim=1)


class MatchLayer(nn.Module):
    """Cross attention to the supports and a feed-forward network, each added to the query."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        """Build the layers.

        Args:
            channels: channels of the maps.
            heads: heads of the attention.
            dropout: share of values dropped in training.
        """
        super().__init__()
        self.norm1 = MapNorm(channels)
        self.attention = ObjectAttention(channels, heads)
        self.dropout = SharedDropout(dropout)
        self.norm2 = MapNorm(channels)
        self.ffn = MixFeedForward(channels, dropout)

    def forward(self, query: Tensor, supports: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Match.

        Args:
            query: (B, C, h, w).
            supports: (B, K, C, r, s).
            masks: 1 on the object, 0 elsewhere, (B, K, r, s).

        Returns:
            The query (B, C, h, w), and the mean similarity of its positions to the object (B, h, w).
        """
        tokens = self.norm1(supports.flatten(0, 1)).unflatten(0, supports.shape[:2])
        tokens = tokens.movedim(2, -1).flatten(1, 3)  # (B, K r s, C)
        given, similarity = self.attention(self.norm1(query).flatten(2).mT, tokens, masks.flatten(1))
        x = query + self.dropout(given.mT.reshape(query.shape))
        matched: Tensor = x + self.ffn(self.norm2(x))
        return matched, similarity.reshape(query[:, 0].shape)


def distillation(similarities: list[Tensor], label: Tensor) -> Tensor:
    """Let the label teach the coarsest similarity, and every similarity the next finer one.

    Args:
        similarities: coarse to fine, (B, h, w) each.
        label: label of the query, 1 on the object, (B, H, W).

    Returns:
        Mean over the levels of the Kullback-Leibler divergence between softmaxes over all positions; nothing reaches
        a teacher.
    """
    teacher = torch.where(label == 1, 1.0, OUTSIDE).to(similarities[0].dtype)
    terms = []
    for similarity in similarities:
        size = (similarity.shape[-2], similarity.shape[-1])
        target = F.interpolate(teacher[:, None], size=size, mode="bilinear", align_corners=False).flatten(1)
        terms.append(F.kl_div(similarity.flatten(1).log_softmax(dim=1), target.softmax(dim=1), reduction="batchmean"))
        teacher = similarity.detach()
    return torch.stack(terms).mean()
