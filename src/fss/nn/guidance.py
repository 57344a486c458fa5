"""What the supports tell about the query, shot by shot: prototypes and prior masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fss.nn.context import middle_features
from fss.nn.prior import prior_mask
from fss.nn.prototype import masked_average, support_mask
from fss.nn.resize import up
from fss.types import EpisodeFeatures


def guidance(features: EpisodeFeatures, reduce: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Pool every support's middle features over its mask, and compare its high-level ones with the query's.

    Args:
        features: stages 2, 3 and 4; supports masked before stage 4.
        reduce: maps middle features (B, C3 + C2, h, w) to (B, C, h, w), one support at a time.

    Returns:
        Prototypes (B, K, C, 1, 1) and priors (B, K, 1, h, w), at the resolution of stage 3.
    """
    query4, size = features.query[4], (features.query[3].shape[-2], features.query[3].shape[-1])
    prototypes, priors = [], []
    for k in range(features.support_labels.shape[1]):
        mask = support_mask(features.support_labels[:, k], query4.dtype)
        support = {stage: maps[:, k] for stage, maps in features.support.items()}
        prototypes.append(masked_average(reduce(middle_features(support)), up(mask, size)))
        priors.append(up(prior_mask(query4, support[4], mask), size))
    return torch.stack(prototypes, dim=1), torch.stack(priors, dim=1)
