"""Support masks and masked average pooling."""

from __future__ import annotations

import torch
from torch import Tensor

AREA_EPS = 0.0005
"""Added to the mask area, in feature pixels (released constant)."""


def support_mask(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Binarise support labels; ignored pixels count as background.

    Args:
        labels: values 0, 1, 255, (..., H, W).
        dtype: floating type of the result.

    Returns:
        1 on the class, else 0, (..., 1, H, W).
    """
    return (labels == 1).to(dtype).unsqueeze(-3)


def masked_average(features: Tensor, mask: Tensor) -> Tensor:
    """Pool features over a soft mask (weighted GAP of PFENet).

    Args:
        features: (N, C, h, w).
        mask: in [0, 1], (N, 1, h, w).

    Returns:
        prototype: sum of features * mask over (area + 0.0005), (N, C, 1, 1); zero for an empty mask.
    """
    area = mask.sum(dim=(2, 3), keepdim=True) + AREA_EPS
    return (features * mask).sum(dim=(2, 3), keepdim=True) / area
