"""Difference in style between two images, by the Gram matrices of their features (BAM, arXiv 2203.07615)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-7


def gram(features: Tensor) -> Tensor:
    """Compare every channel with every other one over all positions.

    Args:
        features: (N, C, h, w).

    Returns:
        Cosines between channels, (N, C, C).
    """
    rows = features.flatten(2)
    norms = rows.norm(dim=2)
    cosines: Tensor = torch.bmm(rows, rows.transpose(1, 2)) / (norms.unsqueeze(2) * norms.unsqueeze(1) + EPS)
    return cosines


def style_distance(query: Tensor, supports: Tensor) -> Tensor:
    """Return psi: how far each support's Gram matrix is from the query's.

    Args:
        query: low-level features of the query, (B, C, h, w).
        supports: those of the supports, not masked, (B, K, C, r, s).

    Returns:
        Frobenius norm of the difference over C, (B, K); 0 for equal matrices.
    """
    return gram_distance(gram(query), [gram(support) for support in supports.unbind(1)])


def gram_distance(query: Tensor, supports: Sequence[Tensor]) -> Tensor:
    """Return psi from the matrices.

    Args:
        query: of the query, (B, C, C).
        supports: of its supports, K of (B, C, C).

    Returns:
        As :func:`style_distance`, (B, K).
    """
    distances = [(query - support).flatten(1).norm(dim=1) for support in supports]
    return torch.stack(distances, dim=1) / query.shape[1]
