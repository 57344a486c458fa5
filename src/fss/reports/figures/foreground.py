"""Whether growing singular values belong to components that respond to the foreground, over all components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes

from fss.reports.correlation import Association, Numbers, Stratum, associate, mean_energy, midranks
from fss.reports.figures.base import Column, Drawn, FigureKind, Run
from fss.reports.figures.components import EXPERIMENT, NEEDS, Components, load_components
from fss.reports.figures.style import BLACK, BLUE, RED, canvas, plain, style
from fss.results import ReportError

Rule = Literal["absolute", "relative", "magnitude"]
RULES: tuple[Rule, ...] = ("absolute", "relative", "magnitude")
BINS = 10
ALL = "all layers"


def changes(before: Numbers, after: Numbers, rule: Rule) -> Numbers:
    """Return how singular values changed.

    Args:
        before: (R,).
        after: (R,).
        rule: ``absolute``: the difference; ``relative``: its ratio to the value before (0 where that is 0);
            ``magnitude``: the difference of absolute values, as a value that crosses 0 falls although its component
            may become stronger.

    Returns:
        (R,).
    """
    difference = np.abs(after) - np.abs(before) if rule == "magnitude" else after - before
    if rule != "relative":
        return difference
    return np.divide(difference, before, out=np.zeros_like(difference), where=np.abs(before) > 0)


def strata(recordings: Sequence[Components]) -> list[Stratum]:
    """Return the components of every layer of every run.

    Args:
        recordings: component recordings of the runs.

    Returns:
        One stratum per layer and run, with its changes under each of :data:`RULES`.
    """
    return [
        Stratum(
            layer,
            number,
            np.array([changes(one.before(layer), one.after(layer), rule) for rule in RULES]),
            one.energy(layer),
        )
        for number, one in enumerate(recordings)
        for layer in one.layers
    ]


def _draw(runs: Sequence[Run]) -> Drawn:
    recordings = _comparable(load_components(runs))
    found = associate(strata(recordings))  # one entry per rule
    groups, absolute = found[0]
    figure = canvas(columns=2, height=max(2.2, 0.6 + 0.105 * len(groups)))
    with style():
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
        _bins(left, recordings, absolute)
        _forest(right, groups, absolute)
    return Drawn(figure, _data(recordings, groups), _caption(recordings, [pooled for _, pooled in found]))


def _comparable(recordings: list[Components]) -> list[Components]:
    """Keep the runs that share the strategy, backbone, method and data of the first; others have other components."""

    def family(one: Components) -> tuple[object, ...]:
        return tuple(one.run.key.get(name) for name in ("finetune", "backbone", "method", "data"))

    kept = [one for one in recordings if family(one) == family(recordings[0])]
    if all(np.array_equal(one.before(layer), one.after(layer)) for one in kept for layer in one.layers):
        raise ReportError(
            f"no singular value changed in {kept[0].run.folder}: it did not train. Give another folder with --runs, or "
            f"make a run: {NEEDS}"
        )
    return kept


def _bins(ax: Axes, recordings: Sequence[Components], pooled: Association) -> None:
    """Show the mean energy per decile of components, from those that fell most to those that grew most."""
    ranks, energies = _ranked(recordings)
    decile = np.minimum((ranks * BINS).astype(int), BINS - 1)
    by_decile = [energies[decile == number] for number in range(BINS)]
    centres = (np.arange(BINS) + 0.5) / BINS
    means = [float(p.mean()) if p.size else float("nan") for p in by_decile]
    quartiles = [np.quantile(p, (0.25, 0.75)) if p.size else (np.nan, np.nan) for p in by_decile]
    ax.fill_between(
        centres, [q[0] for q in quartiles], [q[1] for q in quartiles], color="#CCCCCC", linewidth=0, label="middle half"
    )
    ax.plot(centres, means, color=BLUE, marker="o", label="mean")
    ax.axhline(0, color=BLACK, linewidth=0.5, linestyle=":")
    plain(ax)
    ax.set_xlim(0, 1)
    ax.set_xticks([0.1, 0.5, 0.9], ["fell most", "", "grew most"])
    ax.set_xlabel("rank of change within the layer")
    ax.set_ylabel("foreground energy")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.2 * (high - low))  # room for the legend
    ax.set_title(rf"all layers: $\rho$ = {pooled}", fontsize=7)
    ax.legend(frameon=False, loc="upper center", ncols=2)


def _ranked(recordings: Sequence[Components]) -> tuple[Numbers, Numbers]:
    """Return the rank of change within the layer, and the energy, of every component that has both."""
    ranks, energies = [], []
    for one in strata(recordings):
        energy = mean_energy(one.energy)
        valid = ~np.isnan(energy)
        if valid.any():
            ranks.append(midranks(one.change[0, valid], np.ones(int(valid.sum()))))
            energies.append(energy[valid])
    return np.concatenate(ranks), np.concatenate(energies)


def _forest(ax: Axes, groups: Mapping[str, Association], pooled: Association) -> None:
    """Show the correlation of every layer with its interval, first layer on top."""
    rows = [*groups.items(), (ALL, pooled)]
    for y, (name, one) in enumerate(reversed(rows)):
        colour, marker = (RED, "s") if one.high < 0 else (BLUE, "o")
        if name == ALL:
            marker = "D"
        open_face = "white" if one.low <= 0 <= one.high else colour
        ax.plot([one.low, one.high], [y, y], color=colour, linewidth=0.9)
        ax.plot([one.value], [y], marker=marker, color=colour, markerfacecolor=open_face, markersize=3)
    ax.axvline(0, color=BLACK, linewidth=0.5, linestyle=":")
    ax.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)], fontsize=5 if len(rows) > 12 else 6)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_xlabel(r"Spearman's $\rho$ with its 95 % interval")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("by layer; filled: the interval leaves out 0", fontsize=7)


def _data(recordings: Sequence[Components], groups: Mapping[str, Association]) -> dict[str, Column]:
    """List every component with the correlation of its layer."""
    columns: dict[str, list[float | int | str]] = {
        name: [] for name in ("run", "layer", "component", "s_before", "s_after", "change", "relative_change",
                              "foreground_energy", "layer_rho", "layer_low", "layer_high")
    }  # fmt: skip
    for one in recordings:
        for layer in one.layers:
            before, after, group = one.before(layer), one.after(layer), groups[layer]
            numbers = (before, after, changes(before, after, "absolute"), changes(before, after, "relative"))
            for index, values in enumerate(zip(*numbers, mean_energy(one.energy(layer)), strict=True)):
                start: list[float | int | str] = [one.run.folder.name, layer, index]
                row = [*start, *map(float, values), group.value, group.low, group.high]
                for name, value in zip(columns, row, strict=True):
                    columns[name].append(value)
    return dict(columns)


def _caption(recordings: Sequence[Components], pooled: Sequence[Association]) -> str:
    absolute, relative, magnitude = pooled
    images = sum(len(one.arrays["episode"]) for one in recordings)
    names = "; ".join(one.run.label() for one in recordings)
    return (
        f"Change of singular values against foreground energy of their components: {absolute.count:,} components of "
        f"{names}. Foreground energy: share of a component's squared activation that falls on the object, minus the "
        f"object's share of the pixels, averaged over {images} novel test images; 0: indifferent. The paper says, "
        "from two components, that growing ones look at the foreground and falling ones at the background: a positive "
        "correlation. Spearman's correlation with the change S after - S before, ranked within each layer: "
        f"{absolute} over all layers; with the relative change: {relative}; with |S after| - |S before|: {magnitude}. "
        "Brackets: 95 % bootstrap interval over images and components. Left: the components of all layers in tenths "
        "of that rank."
    )


FIGURES = (
    FigureKind("foreground", "Do growing components look at the foreground? Correlation over all components", NEEDS,
               EXPERIMENT, _draw),
)  # fmt: skip
