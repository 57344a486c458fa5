"""Training and novel mIoU in every epoch, one chart per strategy: Figures 2, 3 and 7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fss.commands import typed
from fss.reports.figures.base import Column, Drawn, FigureKind, Run
from fss.reports.figures.recordings import (
    Curves,
    best_setting,
    fits,
    read_curves,
    recorded,
    setting_words,
)  # fmt: skip
from fss.reports.figures.style import LINES, canvas, plain, style
from fss.results import ReportError

_WIDEST = 4
_MOST_MARKED = 30
"""Up to this many epochs, every point has a marker."""


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: chart title.
        row: row of the experiment that makes its run.
        tuned: accepted strategy options; each entry trains the same values.
    """

    title: str
    row: str
    tuned: tuple[dict[str, Any], ...]

    def takes(self, run: Run) -> bool:
        """Tell whether a run belongs to this chart.

        Args:
            run: any run.
        """
        return any(fits(run.about.get("finetune", {}), wanted) for wanted in self.tuned)


def _part(stages: list[int], *kernels: int) -> dict[str, Any]:
    return {"name": "part", "stages": stages, "kernel_sizes": list(kernels)}


def _full(*stages: int) -> dict[str, Any]:
    return {"name": "full", "stages": list(stages), "train_norm": False}


_FROZEN = Panel("frozen", "freeze", ({"name": "freeze"},))
_SVF = Panel("SVF", "svf", ({"name": "svf", "stages": [2, 3, 4], "factors": ["S"]},))
_STAGES_234 = Panel("layers 2-4", "stages234", (_part([2, 3, 4], 1, 3), _full(2, 3, 4)))

PANELS: dict[str, tuple[Panel, ...]] = {
    "2": (_FROZEN, Panel("fully fine-tuned", "full", (_full(0, 1, 2, 3, 4),)), _SVF),
    "3": (_FROZEN, _STAGES_234, Panel("every 1x1", "every1x1", (_part([1, 2, 3, 4], 1),)), _SVF),
    "7": (
        _FROZEN,
        Panel("layers 1-4", "stages1234", (_full(1, 2, 3, 4),)),
        _STAGES_234,
        Panel("layers 3-4", "stages34", (_part([3, 4], 1, 3), _full(3, 4))),
        Panel("layer 4", "stage4", (_part([4], 1, 3), _full(4))),
        Panel("3x3, layers 2-4", "only3x3", (_part([2, 3, 4], 3),)),
        Panel("1x1, layers 2-4", "only1x1", (_part([2, 3, 4], 1),)),
        _SVF,
    ),
}
_METHODS = {"2": "pfenet", "3": "baseline", "7": "baseline"}
_CHOICES = {
    "2": "The paper's 'whole backbone' is taken as stem and layers 1 to 4.",
    "3": "'All 1x1 convolutions of the backbone' are taken as those of layers 1 to 4 (Table 6 has those of 2 to 4).",
    "7": "The paper does not list its charts; these are the strategies of Tables 5 and 6.",
}


def draw(name: str, runs: Sequence[Run]) -> Drawn:
    """Draw one chart per strategy.

    Args:
        name: figure number.
        runs: candidates.

    Returns:
        The figure; a chart without a run stays empty and is listed as missing.

    Raises:
        ReportError: no chart has a run.
    """
    command = typed("-m", f"experiment=figure{int(name):02d}")
    found = [run for run in recorded(runs, "curves.csv", command) if run.key.get("method") == _METHODS[name]]
    panels = PANELS[name]
    chosen: list[Run | None] = [None] * len(panels)
    if found:
        comparable = best_setting(found, lambda some: sum(any(map(panel.takes, some)) for panel in panels))
        chosen = [next(filter(panel.takes, comparable), None) for panel in panels]
    taken = [run for run in chosen if run is not None]
    if not taken:
        raise ReportError(
            f"none of the {len(runs)} runs is one of method={_METHODS[name]} that Figure {name} shows. Make them with: "
            f"{command}"
        )
    curves = [None if run is None else read_curves(run) for run in chosen]
    missing = [
        f"{panel.title}: {command} +row={panel.row}" for panel, run in zip(panels, chosen, strict=True) if not run
    ]
    return Drawn(
        _figure(panels, curves), _data(panels, chosen, curves), _caption(name, taken[0], panels, curves), tuple(missing)
    )


def _figure(panels: Sequence[Panel], curves: Sequence[Curves | None]) -> Any:
    columns = min(_WIDEST, len(panels))
    rows = -(-len(panels) // columns)
    figure = canvas(2, height=1.45 if rows > 1 else 1.75, rows=rows)
    with style():
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for i, (axes, panel, curve) in enumerate(zip(grid.flat, panels, curves, strict=False)):
            axes.set_title(f"({chr(ord('a') + i)}) {panel.title}")
            plain(axes)
            if curve is None:
                axes.text(0.5, 0.5, "no run", transform=axes.transAxes, ha="center", va="center")
            else:
                _lines(axes, curve)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
        for axes in grid[:, 0]:
            axes.set_ylabel("mIoU (%)")
        drawn = next(axes for axes, curve in zip(grid.flat, curves, strict=False) if curve is not None)
        handles, labels = drawn.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, handlelength=3)
    return figure


def _lines(axes: Axes, curve: Curves) -> None:
    series = (("training episodes", curve.train, LINES[1]), ("novel classes", curve.novel, LINES[0]))
    for label, values, line in series:
        valid = ~np.isnan(values)
        x, y = curve.epochs[valid], values[valid]
        marker_step = 1 if len(x) <= _MOST_MARKED else max(1, len(x) // 8)
        axes.plot(x, y, color=line.colour, linestyle=line.style, marker=line.marker, markevery=marker_step, label=label)
    axes.set_xlim(0, 1.04 * curve.epochs.max())
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))


def _data(panels: Sequence[Panel], chosen: Sequence[Run | None], curves: Sequence[Curves | None]) -> dict[str, Column]:
    data: dict[str, list[float | int | str]] = {
        name: [] for name in ("panel", "finetune", "run", "epoch", "train_miou", "novel_miou")
    }
    for panel, run, curve in zip(panels, chosen, curves, strict=True):
        if run is None or curve is None:
            continue
        count = len(curve.epochs)
        data["panel"] += [panel.title] * count
        data["finetune"] += [str(run.key["finetune"])] * count
        data["run"] += [str(run.folder)] * count
        data["epoch"] += [int(epoch) for epoch in curve.epochs]
        data["train_miou"] += _cells(curve.train)
        data["novel_miou"] += _cells(curve.novel)
    return dict(data)


def _cells(values: Sequence[float] | np.ndarray[Any, Any]) -> list[float | int | str]:
    return ["" if np.isnan(value) else float(value) for value in values]


def _caption(name: str, run: Run, panels: Sequence[Panel], curves: Sequence[Curves | None]) -> str:
    ends = []
    for i, (panel, curve) in enumerate(zip(panels, curves, strict=True)):
        letter = chr(ord("a") + i)
        if curve is None:
            ends.append(f"({letter}) {panel.title}: no run.")
        else:
            ends.append(f"({letter}) {panel.title}: {_last(curve.train)} | {_last(curve.novel)}, {_best(curve)}.")
    return (
        f"Figure {name}. mIoU in every epoch, {_METHODS[name]} with {setting_words(run)}: on the augmented training "
        "episodes of the epoch, while the weights change (dashed), and on episodes of the novel classes after it "
        f"(solid). {_CHOICES[name]} Last epoch, training | novel, and the best novel score: {' '.join(ends)}"
    )


def _last(values: np.ndarray[Any, Any]) -> str:
    valid = values[~np.isnan(values)]
    return f"{valid[-1]:.1f}" if len(valid) else "none"


def _best(curve: Curves) -> str:
    if np.isnan(curve.novel).all():
        return "no novel score"
    at = int(np.nanargmax(curve.novel))
    return f"best {curve.novel[at]:.1f} in epoch {int(curve.epochs[at])}"


def _kind(name: str, title: str) -> FigureKind:
    experiment = f"figure{int(name):02d}"
    needs = f"{len(PANELS[name])} runs: {typed('-m', f'experiment={experiment}')}"
    return FigureKind(name, title, needs, experiment, partial(draw, name))


FIGURES = (
    _kind("2", "mIoU in every epoch, PFENet: frozen, fully fine-tuned, SVF"),
    _kind("3", "mIoU in every epoch, baseline: frozen, layers 2 to 4, every 1x1 convolution, SVF"),
    _kind("7", "mIoU in every epoch, baseline: the strategies of Tables 5 and 6"),
)
