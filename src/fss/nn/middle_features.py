"""Middle-level features: stages 3 and 2 concatenated."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fss.nn.resize import up


def middle_features(stages: Mapping[int, Tensor]) -> Tensor:
    """Concatenate stage 3 and stage 2, in this order, at the resolution of stage 3 (VGG's stage 2 is larger).

    Args:
        stages: stage -> (N, C, h, w).

    Returns:
        (N, C3 + C2, h, w).
    """
    size = (stages[3].shape[-2], stages[3].shape[-1])
    return torch.cat([stages[3], up(stages[2], size)], dim=1)
