"""Foreground energy: the share of a map's energy that falls on the object, minus the object's share of the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fss.types import IGNORE


def area_shares(labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize labels by area averaging: the fraction of each cell on the object, and the fraction not ignored.

    Args:
        labels: 1 on the class, 0 elsewhere, 255 ignored, (N, H, W).
        size: (h, w).

    Returns:
        Object fraction and valid fraction, each (N, h, w), float32 in [0, 1].
    """
    indicators = torch.stack([labels == 1, labels != IGNORE], dim=1).float()
    fractions = F.adaptive_avg_pool2d(indicators, size)
    return fractions[:, 0], fractions[:, 1]


def foreground_energy(maps: Tensor, labels: Tensor) -> Tensor:
    """Compute the foreground energy of every map in every image.

    e = sum over the object of a^2 / sum over all of a^2 - the object's share of the pixels. 0 means that the map is
    indifferent to the object. The value does not depend on the scale of the map.

    Args:
        maps: a, (N, R, h, w).
        labels: 1 on the class, 0 elsewhere, 255 ignored, (N, H, W).

    Returns:
        (N, R), float32 in (-1, 1); NaN if the map is all zero, or if the pixels that count are all object, all
        background, or none.
    """
    inside, counted = area_shares(labels.to(maps.device), (maps.shape[-2], maps.shape[-1]))
    energy = maps.float().square()
    on_object = torch.einsum("nrhw,nhw->nr", energy, inside)
    total = torch.einsum("nrhw,nhw->nr", energy, counted)
    share = inside.sum(dim=(1, 2)) / counted.sum(dim=(1, 2))  # NaN (0 / 0) if every pixel is ignored
    share = torch.where((share > 0) & (share < 1), share, torch.nan)
    return on_object / total - share[:, None]
