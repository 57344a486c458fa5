"""Preview grid: the same episodes as predicted by several runs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from fss.files import atomic
from fss.results import ReportError

_BLUE, _ORANGE, _GREEN, _PINK, _GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#7F7F7F"
"""Okabe and Ito's palette, safe for colour-blind readers."""

_VOID = 255
_TILE = 1.45
"""Width of one image in inches."""


@dataclass(frozen=True)
class Previews:
    """Preview episodes of a run, from ``previews.npz``.

    Attributes:
        index: episode numbers, (N,).
        query: RGB, (N, H, W, 3), uint8.
        support: RGB of the first support, (N, H, W, 3), uint8.
        support_mask: (N, H, W), uint8; 1 on the class, 255 ignored.
        truth: (N, H, W), uint8, values as in ``support_mask``.
        prediction: (N, H, W), uint8, 0 or 1.
        iou: foreground IoU of each episode in [0, 1], (N,).
        class_name: (N,), text.
    """

    index: NDArray[np.int64]
    query: NDArray[np.uint8]
    support: NDArray[np.uint8]
    support_mask: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    iou: NDArray[np.float64]
    class_name: NDArray[np.str_]


def load_previews(folder: Path) -> Previews:
    """Read the preview episodes of a run, sorted by number.

    Args:
        folder: run folder with ``previews.npz``.

    Returns:
        previews: the stored arrays.

    Raises:
        ReportError: the file is missing, damaged or empty, or an array is missing or has the wrong shape.
    """
    path = Path(folder) / "previews.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays: dict[str, NDArray[Any]] = {f.name: stored[f.name] for f in fields(Previews)}
    except FileNotFoundError as error:
        raise ReportError(f"{path} is missing; run the test again with previews switched on") from error
    except KeyError as error:
        raise ReportError(f"{path}: {error.args[0]}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ReportError(f"{path} is damaged ({error}); run the test again") from error
    order = np.argsort(arrays["index"], kind="stable")
    shape = arrays["query"].shape[:3]
    for name, array in arrays.items():
        expected = {"query": (*shape, 3), "support": (*shape, 3)}.get(name, shape if array.ndim == 3 else shape[:1])
        if array.shape != expected or not len(array):
            raise ReportError(f"{path}: {name} has shape {array.shape}, expected {expected} and at least one episode")
    return Previews(**{name: array[order] for name, array in arrays.items()})


def preview_grid(run_folders: Mapping[str, Path], out: Path, episodes: int = 6) -> None:
    """Draw support, query, truth and each run's prediction, one episode per row.

    Args:
        run_folders: column title -> run folder.
        out: PNG to write.
        episodes: number of rows; fewer if the runs stored fewer.

    Raises:
        ReportError: there is no run, a file is damaged, or the runs hold different episodes.
    """
    runs = {title: load_previews(folder) for title, folder in run_folders.items()}
    if not runs or episodes < 1:
        raise ReportError(f"{len(runs)} runs and {episodes} episodes: nothing to draw; give at least one of each")
    first = next(iter(runs.values()))
    for title, run in runs.items():
        _check_same(next(iter(runs)), first, title, run)
    chosen = _spread(first.class_name, episodes)
    figure, axes = _canvas(len(chosen), 3 + len(runs), first.query.shape[2] / first.query.shape[1])
    for column, title in enumerate(["support", "query", "truth", *runs]):
        axes[0, column].set_title(title, fontsize=9, fontweight="bold", pad=4)
    for row, episode in enumerate(chosen):
        _draw_row(axes[row], runs, episode)
    with atomic(Path(out)) as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})


def tinted(image: NDArray[np.uint8], truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tint the correct, false positive and missed pixels of an image in the colours of the grid.

    Args:
        image: RGB, (H, W, 3).
        truth: 1 on the class, 255 ignored, (H, W).
        found: mask to show, (H, W); ``truth`` itself is shown in green.

    Returns:
        RGB, (H, W, 3).
    """
    if found is truth:
        return _mixed(image, {_GREEN: truth == 1, _GREY: truth == _VOID})
    hit = found == 1
    return _mixed(image, {_BLUE: hit & (truth == 1), _ORANGE: hit & (truth == 0), _PINK: ~hit & (truth == 1)})


def _check_same(title: str, one: Previews, other_title: str, other: Previews) -> None:
    """Raise unless two runs stored the same episodes with the same images and masks."""
    if one.index.tolist() != other.index.tolist():
        difference = sorted(set(one.index.tolist()) ^ set(other.index.tolist()))[:8]
        raise ReportError(f"runs {title!r} and {other_title!r} stored different episodes (e.g. {difference})")
    for name in ("query", "support", "support_mask", "truth", "class_name"):
        if not np.array_equal(getattr(one, name), getattr(other, name)):
            raise ReportError(
                f"runs {title!r} and {other_title!r} differ in {name} of the same episode numbers; "
                "they were tested on other data or with another test seed"
            )


def _spread(class_names: NDArray[np.str_], count: int) -> list[int]:
    """Return positions of episodes, covering every class once before any repeats."""
    turn: dict[str, int] = {}
    order = []
    for position, name in enumerate(class_names.tolist()):
        turn[name] = turn.get(name, -1) + 1
        order.append((turn[name], position))
    return [position for _, position in sorted(order)[:count]]


def _canvas(rows: int, columns: int, aspect: float) -> tuple[Figure, NDArray[Any]]:
    """Return a figure with bare axes, (rows, columns), and a legend below."""
    tile_height, top, bottom, left, gap = _TILE / aspect, 0.3, 0.36, 0.3, 0.05
    width = left + columns * (_TILE + gap)
    height = top + bottom + rows * (tile_height + gap)
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left / width, bottom / height, 1 - gap / width, 1 - top / height, gap / _TILE, gap / tile_height
    )
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    meaning = {"support mask, truth": _GREEN, "correct": _BLUE, "too much": _ORANGE, "missed": _PINK, "ignored": _GREY}
    patches = [
        Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=text) for text, colour in meaning.items()
    ]
    figure.legend(handles=patches, loc="lower center", ncols=5, fontsize=8, frameon=False, handlelength=1.2)
    return figure, axes


def _draw_row(axes: NDArray[Any], runs: Mapping[str, Previews], episode: int) -> None:
    """Draw one episode into a row of axes, (3 + runs,)."""
    first = next(iter(runs.values()))
    query, truth, wanted = first.query[episode], first.truth[episode], first.support_mask[episode] == 1
    axes[0].set_ylabel(str(first.class_name[episode]).replace("_", " "), fontsize=8, labelpad=3)
    _show(axes[0], first.support[episode], {_GREEN: wanted}, wanted, _GREEN)
    axes[1].imshow(query, interpolation="nearest")
    _show(axes[2], query, {_GREEN: truth == 1, _GREY: truth == _VOID}, truth == 1, _GREEN)
    for ax, run in zip(axes[3:], runs.values(), strict=True):
        found = run.prediction[episode] == 1
        tints = {_BLUE: found & (truth == 1), _ORANGE: found & (truth == 0), _PINK: ~found & (truth == 1)}
        _show(ax, query, tints, found, "black")
        label = f"IoU {100 * run.iou[episode]:.0f}"
        box = {"facecolor": "black", "alpha": 0.65, "pad": 1.5, "linewidth": 0}
        ax.text(0.02, 0.03, label, transform=ax.transAxes, fontsize=7, color="white", va="bottom", bbox=box)


def _show(
    ax: Axes,
    image: NDArray[np.uint8],
    tints: Mapping[str, NDArray[np.bool_]],
    outlined: NDArray[np.bool_],
    line: str,
) -> None:
    """Show a desaturated image (H, W, 3) with tinted masks (H, W), and one mask outlined in white and ``line``."""
    ax.imshow(_mixed(image, tints), interpolation="nearest")
    if outlined.any() and not outlined.all():
        for colour, width in (("white", 1.5), (line, 0.7)):
            ax.contour(outlined.astype(float), levels=[0.5], colors=colour, linewidths=width)


def _mixed(image: NDArray[np.uint8], tints: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Return a desaturated image (H, W, 3) with masks (H, W) tinted."""
    mixed = np.asarray(image * 0.5 + image.mean(axis=2, keepdims=True) * 0.5, dtype=np.float64)
    for colour, mask in tints.items():
        mixed[mask] = 0.35 * mixed[mask] + 0.65 * _rgb(colour)
    return mixed.astype(np.uint8)


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)
