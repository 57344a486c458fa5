"""Guidance of the query by its supports: a prototype and a prior mask per shot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fss.nn.middle_features import middle_features
from fss.nn.prior import prior_mask
from fss.nn.prototype import masked_average, support_mask
from fss.nn.resize import up
from fss.types import EpisodeFeatures


def guidance(features: EpisodeFeatures, reduce: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Compute a prototype from the middle features and a prior mask from the high-level features of every support.

    Args:
        features: stages 2, 3 and 4; supports masked before stage 4.
        reduce: maps middle features (B, C3 + C2, h, w) to (B, C, h, w), one support at a time.

    Returns:
        Prototypes (B, K, C, 1, 1) and prior masks (B, K, 1, h, w), at the resolution of stage 3.
    """
    query4, size = features.query[4], (features.query[3].shape[-2], features.query[3].shape[-1])
    prototypes, priors = [], []
    for k in range(features.support_labels.shape[1]):
        mask = support_mask(features.support_labels[:, k], query4.dtype)
        support = {stage: maps[:, k] for stage, maps in features.support.items()}
        prototypes.append(masked_average(reduce(middle_features(support)), up(mask, size)))
        priors.append(up(prior_mask(query4, support[4], mask), size))
    return torch.stack(prototypes, dim=1), torch.stack(priors, dim=1)


def support_parts(maps: Mapping[int, Tensor], labels: Tensor, reduce: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return the parts of :func:`guidance` that depend on one support only.

    Args:
        maps: stages 2, 3 and 4, each (1, C, h, w); of stage 4 only positions inside the mask matter.
        labels: (1, H, W).
        reduce: as in :func:`guidance`.

    Returns:
        ``prototype`` (C, 1, 1) and the results of :func:`inside_mask`.
    """
    high = maps[4]
    mask = support_mask(labels, high.dtype)
    prototype = masked_average(reduce(middle_features(maps)), up(mask, (maps[3].shape[-2], maps[3].shape[-1])))
    return {"prototype": prototype[0], **inside_mask(high, mask)}


def inside_mask(high: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return the positions of one support that matter to the prior mask: those inside its mask plus one outside.

    Args:
        high: its high-level features, (1, C4, h, w).
        mask: its mask, (1, 1, H, W).

    Returns:
        Of these n positions the features ``object`` (C4, n, 1) and the resized mask ``weights`` (1, n, 1).
    """
    weights = up(mask, (high.shape[-2], high.shape[-1])).flatten()
    kept = torch.cat([weights.nonzero().flatten(), (weights == 0).nonzero().flatten()[:1]])
    return {"object": high[0].flatten(1)[:, kept, None], "weights": weights[kept].view(1, -1, 1)}


def guidance_of(
    queries: Sequence[Tensor], supports: Sequence[Sequence[Mapping[str, Tensor]]], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Compute :func:`guidance` from the results of :func:`support_parts`.

    Args:
        queries: stage 4 of the B queries, each (C4, h, w).
        supports: :func:`support_parts` of every support, B rows of K.
        size: resolution of stage 3.
    """
    prototypes = torch.stack([torch.stack([s["prototype"] for s in row]) for row in supports])
    priors = [
        torch.cat([up(prior_mask(query[None], s["object"][None], s["weights"][None]), size) for s in row])
        for query, row in zip(queries, supports, strict=True)
    ]
    return prototypes, torch.stack(priors)
