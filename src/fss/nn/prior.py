"""Prior mask of PFENet (arXiv 2008.01449, section 3.2): where the query resembles the support's object."""

from __future__ import annotations

import torch
from torch import Tensor

from fss.nn.resize import up

EPS = 1e-7
CHUNK = 1 << 22
"""Similarities held in memory at a time: 16 MB in float32, of 169 MB for a pair of images at 641^2."""


def prior_mask(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Score every query position by its best cosine match within the masked support.

    The full similarity matrix is never stored: it is computed in chunks, one episode at a time, and support positions
    outside the mask, whose similarity is zero, are skipped. As with any maximum, gradients flow only through the best
    match of each query position, so the search itself runs without autograd.

    Args:
        query: high-level features of the query, (N, C, h, w).
        support: high-level features of one support, computed from masked stage-3 features, (N, C, r, s).
        mask: full-resolution support mask in [0, 1], (N, 1, H, W).

    Returns:
        prior: min-max scaled to [0, 1] per image, (N, 1, h, w); all zero for an empty mask.
    """
    best = best_cosine(query, support, up(mask, (support.shape[2], support.shape[3])))
    low, high = best.amin(dim=(1, 2, 3), keepdim=True), best.amax(dim=(1, 2, 3), keepdim=True)
    prior: Tensor = (best - low) / (high - low + EPS)
    return prior


def best_cosine(query: Tensor, support: Tensor, weights: Tensor) -> Tensor:
    """Return the best cosine similarity of each query position with the masked support, as it is.

    Args:
        query: (N, C, h, w).
        support: (N, C, r, s).
        weights: mask at its resolution, (N, 1, r, s); positions outside count as vectors of zeros, with a similarity
            of 0.

    Returns:
        (N, 1, h, w).
    """
    n, _, h, w = query.shape
    s, q = (support * weights).flatten(2), query.flatten(2)
    return torch.stack([_best(q[i], s[i], weights[i].flatten()) for i in range(n)]).view(n, 1, h, w)


def _best(query: Tensor, support: Tensor, weights: Tensor) -> Tensor:
    """Return the best cosine similarity of each query position (C, hw) with the masked support (C, rs), (hw)."""
    with torch.no_grad():
        value, position = _search(query, support, weights)
    if not torch.is_grad_enabled() or not (query.requires_grad or support.requires_grad):
        return value
    match = support[:, position]
    best: Tensor = (query * match).sum(dim=0) / (query.norm(dim=0) * match.norm(dim=0) + EPS)
    return best


def _search(query: Tensor, support: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best similarity of each query position and the support position that has it, (hw) each."""
    inside = weights.nonzero().flatten()
    if len(inside) < len(weights):  # one position represents all that are masked out
        inside = torch.cat([inside, (weights == 0).nonzero().flatten()[:1]])
    candidates = support[:, inside]
    norms, query_norms = candidates.norm(dim=0), query.norm(dim=0)
    values, positions = [], []
    step = max(1, CHUNK // query.shape[1])
    for start in range(0, len(inside), step):
        chunk = slice(start, start + step)
        norm_products = norms[chunk, None] * query_norms + EPS
        value, position = ((candidates[:, chunk].T @ query) / norm_products).max(dim=0)
        values.append(value)
        positions.append(position + start)
    value, best_chunk = torch.stack(values).max(dim=0)
    position = torch.stack(positions).gather(0, best_chunk[None])[0]
    return value, inside[position]
