"""Helpers of the callbacks that keep images: pixels of a normalised tensor, and rows of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

Row = TypeVar("Row")


class Denormalise:
    """Turns normalised images back into pixels.

    Args:
        mean: per channel, in [0, 1].
        std: likewise.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    def __call__(self, image: Tensor) -> NDArray[np.uint8]:
        """Return pixels.

        Args:
            image: normalised RGB, (3, H, W).

        Returns:
            (H, W, 3).
        """
        pixels = (image.cpu().float() * self.std + self.mean).clamp(0, 1).mul(255).round()
        return pixels.permute(1, 2, 0).numpy().astype(np.uint8)


def of_all_processes(rows: list[Row]) -> list[Row]:
    """Gather the rows of all processes in every process.

    Args:
        rows: rows of this process.

    Returns:
        All rows, in process order.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, rows)
    return [row for part in gathered for row in part]
