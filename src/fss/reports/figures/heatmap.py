"""Heat map of the change of every tuned convolution's singular values; not in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fss.reports.figures.base import Column, Drawn, FigureKind, Run
from fss.reports.figures.recordings import Array, Layer, read_spectra, strategy_words
from fss.reports.figures.spectrum import COMMAND, choose
from fss.reports.figures.style import BLACK, canvas, style

_TALLEST = 8.0
_ROW = 0.105
"""Height of a readable row in inches."""
_CLIPPED = 99.5
"""Percentile of the absolute changes at which the colour scale ends."""


def draw(runs: Sequence[Run]) -> Drawn:
    """Draw layers by components.

    Args:
        runs: candidates; SVF and the baseline are preferred.

    Returns:
        The figure.

    Raises:
        ReportError: no run has recorded singular values.
    """
    run = choose(runs)
    spectra = read_spectra(run)
    layers = spectra.layers
    last = spectra.epochs[-1]
    caption = (
        f"Change of every singular value of every tuned convolution within {last} epoch{'s' * (last != 1)}, in per "
        f"cent of the convolution's largest pretrained value: {strategy_words(run)}. Rows by depth, columns in the "
        "pretrained order; hatched where a convolution has no more values. Light is growth, dark is decline, the "
        f"middle of the scale is no change; the outermost {100 - _CLIPPED:g} % of the changes have the colour of the "
        f"scale's ends. Mean absolute change of a row: {_means(layers)}."
    )
    return Drawn(_figure(layers), _data(layers), caption)


def changes(layer: Layer) -> Array:
    """Return the change of every value in per cent of the largest pretrained value, (R,).

    Args:
        layer: the convolution.
    """
    scale = layer.before.max()
    return 100 * (layer.after - layer.before) / (scale if scale > 0 else 1.0)


def _figure(layers: Sequence[Layer]) -> Figure:
    widest = max(layer.values.shape[1] for layer in layers)
    table = np.full((len(layers), widest), np.nan)
    for row, layer in enumerate(layers):
        table[row, : layer.values.shape[1]] = changes(layer)
    limit = float(np.nanpercentile(np.abs(table), _CLIPPED)) or 1.0
    height = min(_TALLEST, 0.75 + _ROW * len(layers))
    figure = canvas(2, height=max(1.6, height))
    with style():
        axes = figure.subplots()
        axes.patch.set(hatch="//////", edgecolor="#BBBBBB", facecolor="white")
        edges = np.arange(1, widest + 2), np.arange(-0.5, len(layers))
        mesh = axes.pcolormesh(
            *edges, np.ma.masked_invalid(table), cmap=mpl.colormaps["cividis"], vmin=-limit, vmax=limit, rasterized=True
        )
        axes.set(xscale="log", xlim=(1, widest + 1), ylim=(len(layers) - 0.5, -0.5))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        step = -(-len(layers) // int((height - 0.75) / _ROW + 0.5))
        rows = range(0, len(layers), step)
        axes.set_yticks(list(rows), [layers[row].name for row in rows], fontsize=6)
        axes.tick_params(axis="y", length=0)
        for row in range(1, len(layers)):
            if layers[row].stage != layers[row - 1].stage:
                axes.axhline(row - 0.5, color="white", linewidth=1.6)
                axes.axhline(row - 0.5, color=BLACK, linewidth=0.8)
        axes.set_xlabel("component, in the pretrained order (logarithmic)")
        figure.colorbar(mesh, ax=axes, extend="both", pad=0.01, fraction=0.04, label="change (% of the largest value)")
    return figure


def _data(layers: Sequence[Layer]) -> dict[str, Column]:
    counts = [layer.values.shape[1] for layer in layers]
    return {
        "layer": [layer.name for layer, count in zip(layers, counts, strict=True) for _ in range(count)],
        "kernel": [layer.kernel for layer, count in zip(layers, counts, strict=True) for _ in range(count)],
        "component": [i + 1 for count in counts for i in range(count)],
        "before": np.concatenate([layer.before for layer in layers]).tolist(),
        "after": np.concatenate([layer.after for layer in layers]).tolist(),
        "change_percent_of_largest": np.concatenate([changes(layer) for layer in layers]).tolist(),
    }


def _means(layers: Sequence[Layer]) -> str:
    by_stage: dict[int, list[float]] = {}
    for layer in layers:
        by_stage.setdefault(layer.stage, []).append(float(np.abs(changes(layer)).mean()))
    return ", ".join(f"layer {stage} {np.mean(means):.2g} %" for stage, means in by_stage.items())


FIGURES = (
    FigureKind(
        "heatmap",
        "change of every tuned convolution's singular values, layer by component",
        f"one run: {COMMAND}",
        "figure06",
        draw,
    ),
)
