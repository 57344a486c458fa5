"""Singular values before and after tuning, and their change: Figures 6 and 8 to 12."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fss.commands import typed
from fss.reports.figures.base import Column, Drawn, FigureKind, Run
from fss.reports.figures.recordings import Array, Layer, Spectra, read_spectra, recorded, strategy_words
from fss.reports.figures.style import BLACK, BLUE, ORANGE, RED, canvas, plain, style
from fss.results import ReportError

TOP = 30
"""Number of values that the paper shows: the largest before tuning."""
COMMAND = typed("experiment=figure06")
_NARROW, _WIDE = 4, 6
_MOST_MARKED = 40
"""Up to this many values, each has its own marker and bar."""


@dataclass(frozen=True)
class Chart:
    """One chart: singular values of a convolution, the largest before tuning first.

    Attributes:
        title: chart title.
        layer: module path of the convolution.
        before: pretrained values, (n,).
        after: tuned values, (n,).
    """

    title: str
    layer: str
    before: Array
    after: Array

    @property
    def change(self) -> Array:
        """After minus before, (n,)."""
        return self.after - self.before

    @property
    def mean_change(self) -> float:
        """Mean absolute change."""
        return float(np.abs(self.change).mean())

    @property
    def mean_relative(self) -> float:
        """Mean absolute change relative to the pretrained value, in per cent; zero values are left out."""
        positive = self.before > 0
        shares = np.abs(self.change[positive]) / self.before[positive]
        return 100 * float(shares.mean()) if positive.any() else float("nan")


@dataclass(frozen=True)
class Plan:
    """What a figure shows.

    Attributes:
        stage: backbone stage.
        kernels: kernel sizes, 3 or 1.
        top: number of values; None: all.
        every_block: one chart per block; otherwise only the last convolution of the stage.
    """

    stage: int
    kernels: tuple[int, ...]
    top: int | None = TOP
    every_block: bool = False


PLANS = {
    "6": Plan(3, (1, 3)),
    "8": Plan(3, (3,), every_block=True),
    "9": Plan(2, (3,), every_block=True),
    "10": Plan(3, (1,), every_block=True),
    "11": Plan(2, (1,), every_block=True),
    "12": Plan(3, (3, 1), top=None),
}


def draw(name: str, runs: Sequence[Run]) -> Drawn:
    """Draw the singular values of a stage.

    Args:
        name: figure number.
        runs: candidates; SVF and the baseline are preferred.

    Returns:
        The figure.

    Raises:
        ReportError: no run recorded singular values, or its backbone has no such convolution.
    """
    run = choose(runs)
    spectra, plan = read_spectra(run), PLANS[name]
    charts: list[Chart] = []
    missing: list[str] = []
    for kernel in plan.kernels:
        found = _charts(spectra, plan, kernel)
        charts += found
        if not found:
            missing.append(_missing(run, plan, kernel))
    if not charts:
        raise ReportError(" ".join(missing))
    tuned = str(run.key.get("finetune", "tuning"))
    return Drawn(_figure(charts, plan, tuned), _data(charts), _caption(name, run, spectra, charts), tuple(missing))


def choose(runs: Sequence[Run]) -> Run:
    """Choose the run whose singular values are shown.

    Args:
        runs: candidates.

    Returns:
        The run preferred for SVF, then the baseline, then real data, then the lowest fold, shot and seed.

    Raises:
        ReportError: no run recorded singular values.
    """

    def rank(run: Run) -> tuple[bool, bool, bool, str]:
        key = run.key
        order = " ".join(f"{key.get(name, 0):>6}" for name in ("fold", "shot", "seed"))
        return (key.get("finetune") != "svf", key.get("method") != "baseline", key.get("data") == "shapes", order)

    return min(recorded(runs, "spectra.npz", COMMAND), key=rank)


def _charts(spectra: Spectra, plan: Plan, kernel: int) -> list[Chart]:
    layers = [one for one in spectra.layers if one.stage == plan.stage and one.kernel == kernel and not one.is_shortcut]
    if kernel == 1:  # keep the last of the two in a bottleneck
        layers = list({one.block: one for one in layers}.values())
    if not plan.every_block:
        layers = layers[-1:]
    blocks = [one.block for one in layers]
    return [_chart(one, plan, blocks.count(one.block) > 1) for one in layers]


def _chart(layer: Layer, plan: Plan, shared: bool) -> Chart:
    order = np.argsort(-layer.before, kind="stable")[: plan.top]
    if not plan.every_block:
        title = f"last {layer.kernel}x{layer.kernel} of layer {plan.stage}"
    else:
        match = re.fullmatch(r"layer\d+\.(\d+)\.(\w+)", layer.name)
        title = layer.name if match is None else f"block {int(match[1]) + 1}" + f", {match[2]}" * shared
    return Chart(title, layer.name, layer.before[order], layer.after[order])


def _missing(run: Run, plan: Plan, kernel: int) -> str:
    tuned = run.about.get("finetune", {})
    return (
        f"{run.folder} tuned no {kernel}x{kernel} convolution in layer {plan.stage} (backbone="
        f"{run.key.get('backbone')}, finetune={tuned.get('name')}, stages {tuned.get('stages')}): this needs a "
        f"backbone of bottlenecks with SVF there: {COMMAND} backbone=resnet50"
    )


def _figure(charts: Sequence[Chart], plan: Plan, tuned: str) -> Figure:
    columns, groups = _layout(len(charts))
    figure = canvas(2, height=2.05, rows=groups)
    with style():
        ratios = [3.0, 2.0] * groups
        grid = figure.subplots(2 * groups, columns, squeeze=False, height_ratios=ratios)
        for i in range(columns * groups):
            top, low = grid[2 * (i // columns), i % columns], grid[2 * (i // columns) + 1, i % columns]
            if i < len(charts):
                _values(top, charts[i], tuned)
                _changes(low, charts[i])
            else:
                top.remove()
                low.remove()
        _share_scale([grid[2 * (i // columns) + 1, i % columns] for i in range(len(charts))], columns)
        for group in range(groups):
            grid[2 * group, 0].set_ylabel("singular value")
            grid[2 * group + 1, 0].set_ylabel("change")
        for i in range(max(0, len(charts) - columns), len(charts)):
            grid[2 * (i // columns) + 1, i % columns].set_xlabel("index")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, handlelength=3)
    return figure


def _layout(count: int) -> tuple[int, int]:
    """Return columns and groups of rows, with groups as even as possible: six charts as three and three."""
    widest = _NARROW if count <= 2 * _NARROW else _WIDE
    groups = -(-count // widest)
    return -(-count // groups), groups


def _values(axes: Axes, chart: Chart, tuned: str) -> None:
    index = np.arange(1, len(chart.before) + 1)
    marks = len(index) <= _MOST_MARKED
    axes.plot(
        index, chart.before, color=BLACK, linestyle="--", marker="s" if marks else "", markersize=3.4,
        markerfacecolor="white", markeredgewidth=0.6, linewidth=0.8, label="pretrained",
    )  # fmt: skip
    axes.plot(
        index, chart.after, color=BLUE, linestyle="-", marker="o" if marks else "", markersize=1.6, linewidth=0.8,
        label=f"after {'SVF' if tuned == 'svf' else tuned}",
    )  # fmt: skip
    axes.set_title(chart.title)
    axes.margins(y=0.09)  # keep markers inside the axes
    axes.set_xlim(0, len(index) + 1)
    axes.tick_params(labelbottom=False)
    plain(axes)


def _changes(axes: Axes, chart: Chart) -> None:
    index = np.arange(1, len(chart.change) + 1)
    if len(index) <= _MOST_MARKED:
        grew = chart.change >= 0
        axes.bar(index[grew], chart.change[grew], width=0.8, color=ORANGE, edgecolor=BLACK, linewidth=0.3)
        axes.bar(index[~grew], chart.change[~grew], width=0.8, color=BLUE, edgecolor=BLACK, linewidth=0.3)
    else:
        axes.plot(index, chart.change, color=RED, linewidth=0.7)
    axes.axhline(0, color=BLACK, linewidth=0.5)
    axes.set_xlim(0, len(index) + 1)
    plain(axes)


def _share_scale(axes: Sequence[Axes], columns: int) -> None:
    """Give all change axes one scale, labelled once per row, so that sizes can be compared."""
    limits = [one.get_ylim() for one in axes]
    for i, one in enumerate(axes):
        one.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        one.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        if i % columns:
            one.tick_params(labelleft=False)
            one.yaxis.get_offset_text().set_visible(False)


def _data(charts: Sequence[Chart]) -> dict[str, Column]:
    data: dict[str, list[float | int | str]] = {
        name: []
        for name in (
            "chart",
            "layer",
            "index",
            "before",
            "after",
            "change",
            "mean_abs_change",
            "mean_rel_change_percent",
        )
    }
    for chart in charts:
        count = len(chart.before)
        data["chart"] += [chart.title] * count
        data["layer"] += [chart.layer] * count
        data["index"] += list(range(1, count + 1))
        data["before"] += chart.before.tolist()
        data["after"] += chart.after.tolist()
        data["change"] += chart.change.tolist()
        data["mean_abs_change"] += [chart.mean_change] * count
        data["mean_rel_change_percent"] += [chart.mean_relative] * count
    return dict(data)


def _caption(name: str, run: Run, spectra: Spectra, charts: Sequence[Chart]) -> str:
    count = max(len(chart.before) for chart in charts)
    shown = "All" if PLANS[name].top is None else f"The {count} largest"
    sums = "; ".join(
        f"{chart.title} ({chart.layer}) {chart.mean_change:.3g} ({chart.mean_relative:.2g} %)" for chart in charts
    )
    last = spectra.epochs[-1]
    so_far = "" if run.result is not None else " so far (the run is not finished)"
    return (
        f"Figure {name}. {shown} singular values before tuning and the same values after {last} "
        f"epoch{'s' * (last != 1)}{so_far}; below, the change. {strategy_words(run)}. The index is that of the "
        "pretrained order; after tuning the values need not be sorted. The paper leaves open whether it shows both "
        f"or their difference: both are here. Mean absolute change, and relative to the pretrained value: {sums}."
    )


def _kind(name: str, title: str) -> FigureKind:
    return FigureKind(name, title, f"one run: {COMMAND}", "figure06", partial(draw, name))


FIGURES = (
    _kind("6", "30 largest singular values before and after, last convolutions of layer 3"),
    _kind("8", "30 largest singular values of every block, layer 3, 3x3"),
    _kind("9", "30 largest singular values of every block, layer 2, 3x3"),
    _kind("10", "30 largest singular values of every block, layer 3, last 1x1"),
    _kind("11", "30 largest singular values of every block, layer 2, last 1x1"),
    _kind("12", "all singular values before and after, last convolutions of layer 3"),
)
