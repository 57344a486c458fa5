"""Style difference between images, from the Gram matrices of their features (BAM, arXiv 2203.07615)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-7


def gram(features: Tensor) -> Tensor:
    """Compute the cosine similarity of every pair of channels over all positions.

    Args:
        features: (N, C, h, w).

    Returns:
        Cosine similarities, (N, C, C).
    """
    channels = features.flatten(2)
    norms = channels.norm(dim=2)
    cosines: Tensor = torch.bmm(channels, channels.transpose(1, 2)) / (norms.unsqueeze(2) * norms.unsqueeze(1) + EPS)
    return cosines


def style_distance(query: Tensor, supports: Tensor) -> Tensor:
    """Return psi, the distance of each support's Gram matrix from the query's.

    Args:
        query: low-level features of the query, (B, C, h, w).
        supports: unmasked low-level features of the supports, (B, K, C, r, s).

    Returns:
        Frobenius norm of the difference over C, (B, K); 0 for equal matrices.
    """
    return gram_distance(gram(query), [gram(support) for support in supports.unbind(1)])


def gram_distance(query: Tensor, supports: Sequence[Tensor]) -> Tensor:
    """Return psi from precomputed Gram matrices.

    Args:
        query: Gram matrices of the queries, (B, C, C).
        supports: Gram matrices of the K supports, (B, C, C) each.

    Returns:
        As :func:`style_distance`, (B, K).
    """
    distances = [(query - support).flatten(1).norm(dim=1) for support in supports]
    return torch.stack(distances, dim=1) / query.shape[1]
