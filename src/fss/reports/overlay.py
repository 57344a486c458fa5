"""Overlay of a predicted mask on an image."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLOUR = "#E69F00"
_DPI = 100


def overlay(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tint the object, darken the rest, and outline the object.

    Args:
        image: RGB, (H, W, 3).
        mask: 1 on the object, (H, W).

    Returns:
        RGB, (H, W, 3).
    """
    found = (mask == 1)[..., None]
    colour = 255 * np.array(to_rgb(COLOUR))
    tinted = np.where(found, 0.6 * image + 0.4 * colour, 0.6 * image).astype(np.uint8)
    if not found.any() or found.all():
        return tinted
    height, width = mask.shape
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.imshow(tinted, interpolation="nearest", aspect="auto")
    axes.contour(mask == 1, levels=[0.5], colors=[COLOUR], linewidths=max(1.5, min(height, width) / 200))
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(drawn[:height, :width])
