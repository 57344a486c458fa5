"""Bilinear interpolation with aligned corners, the standard in few-shot segmentation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def up(x: Tensor, size: tuple[int, int] | int, align_corners: bool = True) -> Tensor:
    """Resize maps bilinearly; maps that already have the size are returned as they are.

    Args:
        x: (N, C, h, w), floating point.
        size: (H, W), or one number for a square.
        align_corners: True in every head of this package; kept for heads whose release says otherwise.

    Returns:
        (N, C, H, W).
    """
    target = (size, size) if isinstance(size, int) else size
    if tuple(x.shape[-2:]) == tuple(target):
        return x
    return F.interpolate(x, size=target, mode="bilinear", align_corners=align_corners)
