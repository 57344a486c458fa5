"""Failure gallery: the worst and the best test episodes of a run, and the IoU of every class."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

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
COMMAND = f"python train.py experiment={EXPERIMENT}"
_ROWS = 4
_TILE = 0.74
_LEVEL = 6
"""Up to so many classes their names stand level."""
_SAMPLES = 1000
_ARRAYS = (
    "end", "index", "class_name", "iou", "query", "support", "support_mask", "truth", "prediction",
)  # fmt: skip


@dataclass(frozen=True)
class ClassScore:
    """IoU of a class over its test episodes, in per cent.

    Attributes:
        name: of the class.
        iou: the score; NaN without episodes.
        low: lower end of its 95 % bootstrap interval, NaN where it is not known.
        high: its upper end.
        episodes: how many; 0 where it is not known.
    """

    name: str
    iou: float
    low: float = float("nan")
    high: float = float("nan")
    episodes: int = 0


def _draw(runs: Sequence[Run]) -> Drawn:
    """Draw the first finished run that has a gallery, or the first unfinished one."""
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
        for block, (end, places) in zip((axes[:, :3], axes[:, 4:]), chosen.items(), strict=True):
            _episodes(block, kept, end, places)
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
    """Choose episodes of one end: the first of every class before the second of any, extreme ones first.

    Args:
        kept: content of the file.
        end: ``worst`` or ``best``.
        count: how many.

    Returns:
        Their positions.
    """
    sign = 1 if end == "worst" else -1
    turn: dict[str, int] = {}
    order = []
    for position in np.flatnonzero(kept["end"] == end).tolist():  # in the file, the extreme ones of a class come first
        name = str(kept["class_name"][position])
        turn[name] = turn.get(name, -1) + 1
        order.append((turn[name], sign * float(kept["iou"][position]), position))
    return [position for *_, position in sorted(order)[:count]]


def class_scores(run: Run, seed: int = 0) -> list[ClassScore]:
    """Return the IoU of every test class, with intervals if the run kept its episodes.

    Args:
        run: finished, or it has none.
        seed: of the bootstrap over the episodes of a class.

    Returns:
        The classes, in the order of the result.
    """
    if run.result is None:
        return []
    scores = run.result.scores.per_class
    rows = _episode_rows(run.folder / "episodes.csv")
    rng = np.random.default_rng(seed)
    found = []
    for name, iou in scores.items():
        counts = rows.get(name)
        if iou is None or counts is None:
            found.append(ClassScore(name, float("nan") if iou is None else iou))
            continue
        draws = counts[rng.integers(len(counts), size=(_SAMPLES, len(counts)))].sum(axis=1)
        low, high = np.quantile(100 * draws[:, 0] / np.maximum(draws[:, 1], 1), (0.025, 0.975))
        found.append(ClassScore(name, iou, float(low), float(high), len(counts)))
    return found


def _episode_rows(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read intersection and union of the foreground per class, (episodes, 2); nothing if there is no such file."""
    if not path.is_file():
        return {}
    rows: dict[str, list[tuple[float, float]]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                counts = (float(row["foreground_intersection"]), float(row["foreground_union"]))
                rows.setdefault(row["class"], []).append(counts)
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise ReportError(
            f"{path} is damaged ({error}): delete it, the bars are drawn without intervals then"
        ) from error
    return {name: np.array(counts) for name, counts in rows.items()}


def _heights(kept: Arrays, chosen: dict[str, list[int]]) -> list[float]:
    """Return the height over the width of every row: of its highest image."""
    rows = max(len(places) for places in chosen.values())
    heights = [0.3] * rows
    for places in chosen.values():
        for row, at in enumerate(places):
            shapes = (shape(kept["truth"][at]), shape(kept["support_mask"][at]))
            heights[row] = max(heights[row], *shapes)
    return heights


def _episodes(axes: NDArray[Any], kept: Arrays, end: str, places: list[int]) -> None:
    """Show episodes of one end: support, truth, prediction."""
    titles = ("support", f"{end} episodes\nquery, truth", "prediction")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=7, pad=3)
    for row, at in enumerate(places):
        query, truth, found = kept["query"][at], kept["truth"][at], kept["prediction"][at]
        support = kept["support_mask"][at]
        _show(axes[row, 0], tinted(kept["support"][at], support, support), support, support)
        _show(axes[row, 1], tinted(query, truth, truth), truth, truth)
        _show(axes[row, 2], tinted(query, truth, found), truth, found)
        name = str(kept["class_name"][at]).replace("_", " ")
        text = f"{name}, IoU {100 * float(kept['iou'][at]):.0f}"
        axes[row, 1].text(0.5, -0.04, text, transform=axes[row, 1].transAxes, ha="center", va="top", fontsize=6)


def _show(ax: Axes, image: Pixels, margin: Pixels, outlined: Pixels) -> None:
    """Show an image with an outline, which is seen in greyscale, too."""
    ax.imshow(image, interpolation="antialiased")
    bare(ax, margin)
    outline(ax, outlined == 1)


def _bars(ax: Axes, scores: Sequence[ClassScore]) -> None:
    """Show the IoU of every class."""
    if not scores:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "scores of the classes follow when the run has finished", ha="center", fontsize=7)
        return
    places, values = np.arange(len(scores)), np.array([one.iou for one in scores])
    below = np.nan_to_num(values - np.array([one.low for one in scores]))
    above = np.nan_to_num(np.array([one.high for one in scores]) - values)
    ax.bar(places, np.nan_to_num(values), 0.6, color=GREY, edgecolor=BLACK, linewidth=0.5)
    ax.errorbar(
        places, np.nan_to_num(values), yerr=np.maximum([below, above], 0), fmt="none", ecolor=BLACK, elinewidth=0.8,
        capsize=2,
    )  # fmt: skip
    turned = len(scores) > _LEVEL
    names = [one.name.replace("_", " ") for one in scores]
    ax.set_xticks(places, names, rotation=35 if turned else 0, ha="right" if turned else "center")
    ax.set_ylabel("IoU of the class (%)")
    plain(ax)


def _data(kept: Arrays, chosen: dict[str, list[int]], scores: Sequence[ClassScore]) -> dict[str, Column]:
    """List the episodes shown, then the classes."""
    places = [at for some in chosen.values() for at in some]
    nothing = [float("nan")] * len(places)
    return {
        "kind": [*(str(kept["end"][at]) for at in places), *("class" for _ in scores)],
        "class": [*(str(kept["class_name"][at]) for at in places), *(one.name for one in scores)],
        "episode": [*(int(kept["index"][at]) for at in places), *("" for _ in scores)],
        "iou": [*(100 * float(kept["iou"][at]) for at in places), *(one.iou for one in scores)],
        "low": [*nothing, *(one.low for one in scores)],
        "high": [*nothing, *(one.high for one in scores)],
        "episodes": [*(1 for _ in places), *(one.episodes for one in scores)],
    }


def _caption(run: Run, kept: Arrays, scores: Sequence[ClassScore]) -> str:
    known = any(one.episodes for one in scores)
    interval = " Bars: IoU of every class, with 95 % bootstrap intervals over its episodes." if known else ""
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
