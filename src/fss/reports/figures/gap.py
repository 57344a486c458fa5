"""Gap between training and novel mIoU against the number of trained values, one point per strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fss.commands import typed
from fss.reports.figures.base import Column, Drawn, FigureKind, Run
from fss.reports.figures.recordings import read_curves, recorded
from fss.reports.figures.style import BLACK, LINES, canvas, plain, style
from fss.results import ReportError, Result

EXPERIMENT = "figure07"
COMMAND = typed("-m", f"experiment={EXPERIMENT}")
_LINEAR = 100
"""The axis is linear below this number of values, so that it can show 0."""
_IGNORED_OPTIONS = ("name", "memory")
"""Options that do not distinguish strategies."""


@dataclass(frozen=True)
class Point:
    """A finished, recorded run.

    Attributes:
        run: the run.
        result: its result.
        train: mIoU on the training episodes of the last epoch, in per cent.
    """

    run: Run
    result: Result
    train: float

    @property
    def gap(self) -> float:
        """Training minus novel mIoU, in points."""
        return self.train - self.result.scores.miou

    @property
    def tuned(self) -> dict[str, Any]:
        """Options of the strategy that decide what trains, and the recipe, which may depend on the strategy."""
        options: dict[str, Any] = self.run.about.get("finetune", {})
        kept = {k: v for k, v in options.items() if k not in _IGNORED_OPTIONS and not k.startswith("_")}
        return {**kept, "recipe": self.result.key.recipe}

    @property
    def setting(self) -> tuple[Any, ...]:
        """What must be equal for a comparison; folds and seeds are averaged."""
        key = self.result.key
        epochs = self.result.config.get("data", {}).get("epochs")
        return (key.method, key.backbone, key.data, key.shot, key.test, epochs)


def _draw(runs: Sequence[Run]) -> Drawn:
    points, left_out, training = _points(runs)
    by_setting: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        by_setting.setdefault(point.setting, []).append(point)
    chosen = max(by_setting.values(), key=lambda some: (len(_strategies(some)), len(some)))
    strategies = _strategies(chosen)
    figure = canvas(columns=2, height=max(2.4, 0.5 + 0.17 * len(strategies)))
    with style():
        ax = figure.subplots()
        for number, (label, some) in enumerate(strategies.items()):
            _point(ax, number, label, some)
        _frame(ax)
        figure.legend(loc="outside right center", frameon=False, title="strategy: values that train", fontsize=6,
                      title_fontsize=6, alignment="left")  # fmt: skip
    return Drawn(figure, _data(strategies), _caption(strategies, left_out, training, len(points) - len(chosen)))


def _points(runs: Sequence[Run]) -> tuple[list[Point], int, int]:
    """Return the points, the number of finished runs left out, and the number of unfinished runs."""
    points = []
    with_curve = recorded(runs, "curves.csv", COMMAND)
    for run in with_curve:
        if run.result is None:
            continue
        train = read_curves(run).train
        valid = train[~np.isnan(train)]
        if valid.size:
            points.append(Point(run, run.result, float(valid[-1])))
    if not points:
        raise ReportError(
            f"none of the {len(with_curve)} recorded runs has finished, and the gap needs the test. The same command "
            f"continues them: {COMMAND}"
        )
    finished = sum(run.result is not None for run in runs)
    return points, finished - len(points), len(runs) - finished


def _strategies(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Group runs by strategy, fewest trained values first; labels name the options that differ within a strategy."""
    by_name: dict[str, list[Point]] = {}
    for point in points:
        by_name.setdefault(point.result.key.finetune, []).append(point)
    found: dict[str, list[Point]] = {}
    for name, some in by_name.items():
        keys = sorted({key for point in some for key in point.tuned})
        differing = [key for key in keys if len({str(point.tuned.get(key)) for point in some}) > 1]
        for point in some:
            options = [f"{key.replace('_', ' ')} {_text(point.tuned[key])}" for key in differing if key in point.tuned]
            found.setdefault(", ".join([name, *options]), []).append(point)
    return dict(sorted(found.items(), key=lambda item: (_size(item[1]), item[0])))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _size(points: Sequence[Point]) -> int:
    return points[0].result.parameters.backbone_trainable


def _point(ax: Axes, number: int, label: str, points: Sequence[Point]) -> None:
    """Draw the mean and the range of a strategy's runs."""
    line, cycle = LINES[number % len(LINES)], number // len(LINES)
    gaps = [point.gap for point in points]
    mean = float(np.mean(gaps))
    ax.errorbar(
        [_size(points)], [mean], yerr=[[mean - min(gaps)], [max(gaps) - mean]], fmt=line.marker, color=line.colour,
        markerfacecolor="white" if cycle % 2 else line.colour, markersize=5.5, capsize=2, elinewidth=0.8,
        markeredgecolor=line.colour if cycle % 2 else "white", markeredgewidth=0.8 if cycle % 2 else 0.4,
        label=f"{label}: {_size(points):,}",
    )  # fmt: skip


def _frame(ax: Axes) -> None:
    ax.set_xscale("symlog", linthresh=_LINEAR, linscale=0.5)
    ax.set_xlim(-_LINEAR / 4, 3 * max(ax.get_xlim()[1], _LINEAR))
    ax.axhline(0, color=BLACK, linewidth=0.5, linestyle=":")
    ax.set_xlabel("values of the backbone that train")
    ax.set_ylabel("training - novel mIoU (points)")
    plain(ax)


def _data(strategies: dict[str, list[Point]]) -> dict[str, Column]:
    rows = [(label, point) for label, points in strategies.items() for point in points]
    return {
        "strategy": [label for label, _ in rows],
        "fold": [point.result.key.fold for _, point in rows],
        "seed": [point.result.key.seed for _, point in rows],
        "backbone_trainable": [_size([point]) for _, point in rows],
        "train_miou": [point.train for _, point in rows],
        "novel_miou": [point.result.scores.miou for _, point in rows],
        "gap": [point.gap for _, point in rows],
        "run": [point.run.folder.name for _, point in rows],
    }


def _caption(strategies: dict[str, list[Point]], left_out: int, training: int, other: int) -> str:
    some = [point for points in strategies.values() for point in points]
    key = some[0].result.key
    folds, seeds = sorted({p.result.key.fold for p in some}), sorted({p.result.key.seed for p in some})
    notes = ""
    if left_out:
        notes += f" Finished runs without recording/curves.csv, which recording=on writes: {left_out}, left out."
    if training:
        notes += f" Runs that have not finished: {training}, left out."
    if other:
        notes += f" Recorded runs of other settings: {other}, left out."
    return (
        f"Training mIoU of the last epoch (its augmented training episodes) minus mIoU of the test on novel classes, "
        f"against the number of backbone values that train: {key.method}, {key.backbone}, {key.data}, {key.shot}-shot. "
        f"Mean and range over folds {folds} and seeds {seeds}. The two are scores of different classes and images, "
        f"so that only differences between strategies mean something. The axis is linear up to {_LINEAR}.{notes}"
    )


FIGURES = (
    FigureKind("gap", "Training minus novel mIoU against the number of trained values, one point per strategy",
               f"recorded runs of several strategies: {COMMAND}", EXPERIMENT, _draw),
)  # fmt: skip
