"""Foreground energy: how much of a map's activation falls on the object, beyond the object's share of the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.types import IGNORE


def area_shares(labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize labels by area: what part of each cell lies on the object, and what part counts at all.

    Args:
        labels: 1 on the class, 0 elsewhere, 255 ignored, (N, H, W).
        size: (h, w).

    Returns:
        object (N, h, w) and counted (N, h, w), float32 in [0, 1].
    """
    parts = torch.stack([labels == 1, labels != IGNORE], dim=1).float()
    cells = F.adaptive_avg_pool2d(parts, size)
    return cells[:, 0], cells[:, 1]


def foreground_energy(maps: Tensor, labels: Tensor) -> Tensor:
    """Compute the foreground energy of every map in every image.

    e = sum over the object of a^2 / sum over all of a^2 - the object's share of the pixels, so that 0 means that the
    map does not care where the object is. It does not depend on the scale of the map.

    Args:
        maps: a, (N, R, h, w).
        labels: 1 on the class, 0 elsewhere, 255 ignored, (N, H, W).

    Returns:
        (N, R), float32 in (-1, 1); NaN where the map is zero everywhere or the image shows nothing but object, no
        object, or ignored pixels.
    """
    inside, counted = area_shares(labels.to(maps.device), (maps.shape[-2], maps.shape[-1]))
    power = maps.float().square()
    on_object = torch.einsum("nrhw,nhw->nr", power, inside)
    everywhere = torch.einsum("nrhw,nhw->nr", power, counted)
    share = inside.sum(dim=(1, 2)) / counted.sum(dim=(1, 2))  # 0 / 0 is NaN, and stays it
    share = torch.where((share > 0) & (share < 1), share, torch.nan)
    return on_object / everywhere - share[:, None]
