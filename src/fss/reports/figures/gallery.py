"""Failure gallery: the worst and best test episodes of a run, and the IoU of every class."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from fss.commands import typed
from fss.reports.figures.base import Column, Drawn, FigureKind, Run
from fss.reports.figures.components import preference
from fss.reports.figures.image_tiles import bare, outline, shape
from fss.reports.figures.recordings import AGAIN, recorded
from fss.reports.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, canvas, plain, style
from fss.reports.preview_grid import tinted
from fss.results import ReportError

Arrays = dict[str, NDArray[Any]]
Pixels = NDArray[np.uint8]

FILE = "gallery.npz"
EXPERIMENT = "figure06"
COMMAND = typed(f"experiment={EXPERIMENT}")
_ROWS = 4
_TILE = 0.74
_LEVEL = 6
"""Up to this many class names are written horizontally."""
_ARRAYS = (
    "end", "index", "class_name", "iou", "query", "support", "support_mask", "truth", "prediction",
)  # fmt: skip


@dataclass(frozen=True)
class ClassScore:
    """IoU of a class over its test episodes, in per cent.

    Attributes:
        name: class name.
        iou: IoU; NaN without episodes.
        low: lower end of its 95 % bootstrap interval; NaN if unknown.
        high: upper end of the interval; NaN if unknown.
        episodes: number of episodes; 0 if unknown.
    """

    name: str
    iou: float
    low: float = float("nan")
    high: float = float("nan")
    episodes: int = 0


def _draw(runs: Sequence[Run]) -> Drawn:
    """Draw a run that has a gallery: a finished one if possible, then as :func:`preference` sorts."""
    run = min(recorded(runs, FILE, COMMAND), key=lambda one: (one.result is None, preference(one)))
    kept = _load(run.recording / FILE)
    chosen = {end: balanced(kept, end, _ROWS) for end in ("worst", "best")}
    scores = class_scores(run)
    heights = _heights(kept, chosen)
    images, bars = 0.65 + sum(_TILE * height + 0.16 for height in heights), 1.3 if len(scores) <= _LEVEL else 1.6
    figure = canvas(columns=2, height=images + bars)
    with style():
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(images, bars)).flat
        axes = upper.subplots(len(heights), 7, height_ratios=heights, width_ratios=(1, 1, 1, 0.08, 1, 1, 1),
                              squeeze=False)  # fmt: skip
        for ax in axes.flat:
            ax.set_axis_off()
        for block, (end, positions) in zip((axes[:, :3], axes[:, 4:]), chosen.items(), strict=True):
            _episodes(block, kept, end, positions)
        _bars(lower.subplots(), scores)
        meaning = {"object": GREEN, "correct": BLUE, "too much": ORANGE, "missed": PINK}
        patches = [Patch(facecolor=c, edgecolor=BLACK, linewidth=0.4, label=n) for n, c in meaning.items()]
        upper.legend(handles=patches, loc="outside lower center", ncols=4, frameon=False, handlelength=1.0)
    return Drawn(figure, _data(kept, chosen, scores), _caption(run, kept, scores))


def _load(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays: Arrays = {name: stored[name] for name in _ARRAYS}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ReportError(f"{path} is damaged ({error}). {AGAIN}") from error
    if len({len(array) for array in arrays.values()}) > 1 or not len(arrays["end"]):
        raise ReportError(f"{path} is damaged (its arrays differ in length, or are empty). {AGAIN}")
    return arrays


def balanced(kept: Arrays, end: str, count: int) -> list[int]:
    """Choose episodes of one end, covering every class once before any repeats, most extreme first.

    Args:
        kept: arrays of the gallery file.
        end: ``worst`` or ``best``.
        count: number of episodes.

    Returns:
        Their positions in the arrays.
    """
    sign = 1 if end == "worst" else -1
    turn: dict[str, int] = {}
    order = []
    for position in np.flatnonzero(kept["end"] == end).tolist():  # the file lists the most extreme of a class first
        name = str(kept["class_name"][position])
        turn[name] = turn.get(name, -1) + 1
        order.append((turn[name], sign * float(kept["iou"][position]), position))
    return [position for *_, position in sorted(order)[:count]]


def class_scores(run: Run) -> list[ClassScore]:
    """Return the IoU of every test class, with its interval if the result has one.

    Args:
        run: any run; an unfinished one has no scores.

    Returns:
        The classes, in the order of the result.
    """
    if run.result is None:
        return []
    scores, nan = run.result.scores, float("nan")
    intervals, episodes = scores.class_intervals or {}, scores.class_episodes or {}
    found = []
    for name, iou in scores.per_class.items():
        low, high = intervals.get(name) or (nan, nan)
        found.append(ClassScore(name, nan if iou is None else iou, low, high, episodes.get(name, 0)))
    return found


def _heights(kept: Arrays, chosen: dict[str, list[int]]) -> list[float]:
    """Return the height over width of every row, that of its tallest image."""
    rows = max(len(positions) for positions in chosen.values())
    heights = [0.3] * rows
    for positions in chosen.values():
        for row, position in enumerate(positions):
            shapes = (shape(kept["truth"][position]), shape(kept["support_mask"][position]))
            heights[row] = max(heights[row], *shapes)
    return heights


def _episodes(axes: NDArray[Any], kept: Arrays, end: str, positions: list[int]) -> None:
    """Show the episodes of one end: support, truth, prediction."""
    titles = ("support", f"{end} episodes\nquery, truth", "prediction")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=7, pad=3)
    for row, position in enumerate(positions):
        query, truth, found = kept["query"][position], kept["truth"][position], kept["prediction"][position]
        support = kept["support_mask"][position]
        _show(axes[row, 0], tinted(kept["support"][position], support, support), support, support)
        _show(axes[row, 1], tinted(query, truth, truth), truth, truth)
        _show(axes[row, 2], tinted(query, truth, found), truth, found)
        name = str(kept["class_name"][position]).replace("_", " ")
        text = f"{name}, IoU {100 * float(kept['iou'][position]):.0f}"
        axes[row, 1].text(0.5, -0.04, text, transform=axes[row, 1].transAxes, ha="center", va="top", fontsize=6)


def _show(ax: Axes, image: Pixels, margin: Pixels, outlined: Pixels) -> None:
    """Show an image with an outline that is visible in greyscale, too."""
    ax.imshow(image, interpolation="antialiased")
    bare(ax, margin)
    outline(ax, outlined == 1)


def _bars(ax: Axes, scores: Sequence[ClassScore]) -> None:
    """Show the IoU of every class."""
    if not scores:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "scores of the classes follow when the run has finished", ha="center", fontsize=7)
        return
    x, values = np.arange(len(scores)), np.array([one.iou for one in scores])
    below = np.nan_to_num(values - np.array([one.low for one in scores]))
    above = np.nan_to_num(np.array([one.high for one in scores]) - values)
    ax.bar(x, np.nan_to_num(values), 0.6, color=GREY, edgecolor=BLACK, linewidth=0.5)
    ax.errorbar(
        x, np.nan_to_num(values), yerr=np.maximum([below, above], 0), fmt="none", ecolor=BLACK, elinewidth=0.8,
        capsize=2,
    )  # fmt: skip
    turned = len(scores) > _LEVEL
    names = [one.name.replace("_", " ") for one in scores]
    ax.set_xticks(x, names, rotation=35 if turned else 0, ha="right" if turned else "center")
    ax.set_ylabel("IoU of the class (%)")
    plain(ax)


def _data(kept: Arrays, chosen: dict[str, list[int]], scores: Sequence[ClassScore]) -> dict[str, Column]:
    """List the shown episodes, then the classes."""
    positions = [position for chosen_positions in chosen.values() for position in chosen_positions]
    nothing = [float("nan")] * len(positions)
    return {
        "kind": [*(str(kept["end"][position]) for position in positions), *("class" for _ in scores)],
        "class": [*(str(kept["class_name"][position]) for position in positions), *(one.name for one in scores)],
        "episode": [*(int(kept["index"][position]) for position in positions), *("" for _ in scores)],
        "iou": [*(100 * float(kept["iou"][position]) for position in positions), *(one.iou for one in scores)],
        "low": [*nothing, *(one.low for one in scores)],
        "high": [*nothing, *(one.high for one in scores)],
        "episodes": [*(1 for _ in positions), *(one.episodes for one in scores)],
    }


def _caption(run: Run, kept: Arrays, scores: Sequence[ClassScore]) -> str:
    has_intervals = any(one.episodes for one in scores)
    interval = " Bars: IoU of every class, with 95 % bootstrap intervals over its images." if has_intervals else ""
    return (
        f"Worst and best test episodes by foreground IoU, {run.label()}: the most extreme of every class before the "
        f"second of any, of {len(set(kept['class_name'].tolist()))} classes; among episodes of equal IoU the one with "
        "most wrong pixels. Of each: a support with its object, the query with the truth, the query with what is "
        f"correct, too much and missed; outlines: the object, and what was predicted.{interval}"
    )


FIGURES = (
    FigureKind("gallery", "Failure gallery: worst and best test episodes, IoU of every class",
               f"one recorded run: {COMMAND}", EXPERIMENT, _draw),
)  # fmt: skip
