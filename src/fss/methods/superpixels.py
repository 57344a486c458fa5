"""ASGNet's superpixel-guided clustering: seeds on a mask, and clusters of features that grow from them.

What is chosen is chosen in whole numbers, so that it depends neither on rounding nor on the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

SPATIAL = 10.0
"""Cells whose distance counts as much as a difference of 1 between features."""


def nearest_cells(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Reduce a mask to a grid whose cell i looks at pixel floor(i H / h).

    Args:
        mask: boolean, (H, W).
        size: (h, w).

    Returns:
        Boolean, (h, w).
    """
    rows, columns = (torch.arange(n) * side // n for n, side in zip(size, mask.shape, strict=True))
    return mask[rows][:, columns]


def full_cells(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Tell where a mask that is resized bilinearly, with aligned corners, is exactly 1.

    Computed from the pixels that each cell mixes, so that it depends on no rounding.

    Args:
        mask: boolean, (H, W).
        size: (h, w).

    Returns:
        Boolean, (h, w).
    """
    rows, columns = (_mixed(n, side) for n, side in zip(size, mask.shape, strict=True))
    lines = mask[rows[0]] & mask[rows[1]]
    return lines[:, columns[0]] & lines[:, columns[1]]


def _mixed(cells: int, pixels: int) -> tuple[Tensor, Tensor]:
    """Return the first and the last pixel that count at each cell, which are one where it lies on a pixel."""
    place, step = torch.arange(cells) * (pixels - 1), max(cells - 1, 1)
    return place // step, (place + step - 1) // step


def place_seeds(cells: Tensor, most: int, area: int) -> Tensor:
    """Choose the cells from which clusters grow, each as far as possible from the background and from those before.

    The background is that within the bounding box of the mask: its border is none. The release has two peculiarities,
    which its weights were trained with. Of a box without any background, the first seed is the bottom right corner and
    the second one the top left (an artefact of the distance transform it calls). And it finds the number of seeds as
    that of rows, or columns, other than 0, so that seeds in the first row and column are counted out, and the last ones
    of the list are lost.

    Args:
        cells: mask on the grid, boolean, (h, w), on the CPU.
        most: largest number of seeds.
        area: cells per seed; their quotient is rounded, halves to the even number.

    Returns:
        Rows and columns in the order of their choice, (n, 2).
    """
    count = min(round(int(cells.sum()) / area), most)
    if count == 0:
        return torch.zeros(0, 2, dtype=torch.long)
    (top, bottom), (left, right) = (
        (int(found[0]), int(found[-1]) + 1) for found in (cells.any(dim=d).nonzero().flatten() for d in (1, 0))
    )
    box = cells[top:bottom, left:right]
    rows, columns = torch.arange(box.shape[0])[:, None], torch.arange(box.shape[1])
    whole = bool(box.all())
    squares = (rows + 1) ** 2 + columns**2 if whole else _to_background(box)
    seeds = []
    for _ in range(count):
        row, column = divmod(int(squares.argmax()), box.shape[1])  # of equal ones the first
        seeds.append((top + row, left + column))
        own = (rows - row) ** 2 + (columns - column) ** 2
        squares = own if whole and len(seeds) == 1 else torch.minimum(squares, own)
    found = torch.tensor(seeds)
    return found[: int((found != 0).sum(dim=0).max())]


def _to_background(box: Tensor) -> Tensor:
    """Return the squared distance of every cell to the nearest one outside of the mask, (h, w), as whole numbers."""
    height, width = box.shape
    i, j = torch.arange(height), torch.arange(width)
    away = (i[:, None] - i) ** 2  # (row, row of the background)
    within = torch.where(~box, away[:, :, None], (height + width) ** 2).amin(dim=1)  # its own column alone
    return (within[:, None, :] + (j[:, None] - j) ** 2).amin(dim=2)


def cluster(features: Tensor, region: Tensor, seeds: Tensor, rounds: int) -> Tensor:
    """Grow clusters: centres are means of all positions, weighted by their similarity in features and place.

    Each round weighs the positions by exp(-d), where d is the Euclidean distance to the
    centre in features and, divided by 10, in cells; the weights of a centre sum to 1.

    Args:
        features: (C, h, w).
        region: numbers of the positions that are clustered, (P); at least one.
        seeds: positions at which the centres start, in the region or not, (n).
        rounds: number of updates.

    Returns:
        Features of the centres, (n, C).
    """
    height, width = features.shape[1:]
    place = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(features) / SPATIAL
    every = torch.cat([features.flatten(1).T, place], dim=1)
    points, centres = every[region], every[seeds]
    for _ in range(rounds):
        distance = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
        centres = (-distance).softmax(dim=1) @ points
    return centres[:, :-2]
