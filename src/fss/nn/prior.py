"""Prior mask of PFENet (arXiv 2008.01449, section 3.2): where the query resembles the support's object."""

from __future__ import annotations

import torch
from torch import Tensor

from fss.nn.resize import up

EPS = 1e-7


def prior_mask(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Score every query position by its best cosine match within the masked support.

    Args:
        query: high-level features of the query, (N, C, h, w).
        support: high-level features of one support, computed from masked stage-3 features, (N, C, r, s).
        mask: full-resolution support mask in [0, 1], (N, 1, H, W).

    Returns:
        prior: min-max scaled to [0, 1] per picture, (N, 1, h, w); zero everywhere for an empty mask.
    """
    n, _, h, w = query.shape
    s = (support * up(mask, (support.shape[2], support.shape[3]))).flatten(2)
    q = query.flatten(2)
    norms = s.norm(dim=1).unsqueeze(2) * q.norm(dim=1).unsqueeze(1)
    similarity = torch.bmm(s.transpose(1, 2), q) / (norms + EPS)  # (N, r*s, h*w)
    best = similarity.amax(dim=1)
    low, high = best.amin(dim=1, keepdim=True), best.amax(dim=1, keepdim=True)
    prior: Tensor = ((best - low) / (high - low + EPS)).view(n, 1, h, w)
    return prior
