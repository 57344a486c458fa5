"""Previews and curves of a run as text, to be embedded in an HTML page."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from fss.reports.preview_grid import Previews, load_previews, tinted
from fss.results import ReportError

_WIDTH, _HEIGHT = 260, 90
_SIDE = 120
"""Minimum pixels of a tile's longer side; larger previews are subsampled, smaller ones enlarged."""


def preview_strip(folder: Path, episodes: int = 3) -> str | None:
    """Render a run's first test episodes: support, truth, prediction.

    Args:
        folder: run folder.
        episodes: number of rows.

    Returns:
        A JPEG as a data URL, or None if the run has no readable previews.
    """
    try:
        previews = load_previews(folder)
    except ReportError:
        return None
    rows = [_row(previews, episode) for episode in range(min(episodes, len(previews.index)))]
    out = io.BytesIO()
    imsave(out, np.concatenate(rows), format="jpg", pil_kwargs={"quality": 80})
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def curve(folder: Path, column: str) -> str | None:
    """Draw a logged column as an SVG line in the colour of the surrounding text.

    Args:
        folder: run folder.
        column: column of its ``csv/metrics.csv``, e.g. ``train/loss_total``.

    Returns:
        SVG, or None if fewer than two values were logged.
    """
    points = _logged(folder / "csv" / "metrics.csv", column)
    if len(points) < 2:
        return None
    x, y = np.array(points).T
    left, right = _scaled(x, _WIDTH), _HEIGHT - _scaled(y, _HEIGHT)
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(left, right, strict=True))
    label = f"{column} from {y[0]:.3g} to {y[-1]:.3g}, step {x[0]:.0f} to {x[-1]:.0f}"
    return (
        f'<svg viewBox="-3 -3 {_WIDTH + 6} {_HEIGHT + 6}" role="img" aria-label="{label}"><title>{label}</title>'
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )


def _row(previews: Previews, episode: int) -> NDArray[np.uint8]:
    """Return support, query with truth, and query with prediction side by side, (h, 3 w, 3)."""
    query, truth = previews.query[episode], previews.truth[episode]
    tiles = [
        tinted(previews.support[episode], previews.support_mask[episode], previews.support_mask[episode]),
        tinted(query, truth, truth),
        tinted(query, truth, previews.prediction[episode]),
    ]
    longer = max(query.shape[:2])
    step, times = max(1, longer // _SIDE), max(1, round(_SIDE / longer))
    small = [tile[::step, ::step].repeat(times, axis=0).repeat(times, axis=1) for tile in tiles]
    return np.concatenate(small, axis=1)


def _logged(path: Path, column: str) -> list[tuple[float, float]]:
    """Return (step, value) of every row that has a value; empty if the file cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [(row.get("step"), row.get(column)) for row in csv.DictReader(file)]
        return [(float(step), float(value)) for step, value in rows if step and value]
    except (OSError, ValueError, csv.Error):
        return []


def _scaled(values: Sequence[float] | NDArray[np.float64], length: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    span = float(array.max() - array.min()) or 1.0
    scaled: NDArray[np.float64] = length * (array - array.min()) / span
    return scaled
