"""Correlation of every query position with every support position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-5
"""Added to the length of a feature vector (released constant of HSNet and VAT)."""


def normalised(maps: Tensor) -> Tensor:
    """Divide every feature vector by its length plus 1e-5.

    Args:
        maps: (B, C, h, w).

    Returns:
        The same shape; zero vectors stay zero.
    """
    lengths: Tensor = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    return maps / (lengths + EPS)


def correlation(query: Sequence[Tensor], support: Sequence[Tensor]) -> Tensor:
    """Compute the products of all pairs of positions, negative ones set to zero; one channel per pair of maps.

    Args:
        query: n maps, each (B, C, h, w).
        support: n maps of the same channels, each (B, C, u, v).

    Returns:
        (B, n, h, w, u, v).
    """
    products = [torch.einsum("bchw,bcuv->bhwuv", q, s) for q, s in zip(query, support, strict=True)]
    return torch.stack(products, dim=1).clamp(min=0)
