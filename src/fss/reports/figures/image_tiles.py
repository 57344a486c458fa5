"""Images within a figure: cropped to their unpadded area, with outlines visible on any background."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

_VOID = 255


def shape(mask: NDArray[np.uint8]) -> float:
    """Return height over width of an image without the padding that made it square.

    Args:
        mask: 255 in the padding, (H, W).
    """
    height, width = extent(mask)
    return height / width


def extent(mask: NDArray[np.uint8]) -> tuple[int, int]:
    """Return height and width of an image without the padding at its right and bottom.

    Args:
        mask: 255 in the padding, (H, W).
    """
    inside = mask != _VOID
    if not inside.any():
        return mask.shape[0], mask.shape[1]
    return int(np.flatnonzero(inside.any(axis=1))[-1]) + 1, int(np.flatnonzero(inside.any(axis=0))[-1]) + 1


def bare(ax: Axes, mask: NDArray[np.uint8]) -> None:
    """Hide the axes around an image and crop its padding.

    Args:
        ax: changed in place; the image must be drawn already.
        mask: 255 in the padding, (H, W).
    """
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    height, width = extent(mask)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)


def outline(ax: Axes, inside: NDArray[np.bool_]) -> None:
    """Draw a white outline with black edges, visible on any background.

    Args:
        ax: changed in place.
        inside: mask to outline, (H, W).
    """
    if inside.any() and not inside.all():
        for colour, width in (("black", 1.4), ("white", 0.6)):
            ax.contour(inside.astype(float), levels=[0.5], colors=colour, linewidths=width)


def resized(values: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Resize a map bilinearly, aligned at cell centres.

    Args:
        values: (h, w).
        size: (H, W).

    Returns:
        (H, W).
    """
    weights = []
    for new, old in zip(size, values.shape, strict=True):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        weights.append(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old))))
    result: NDArray[np.float64] = weights[0] @ values @ weights[1].T
    return result
