"""Figures 1 and 13: what is frozen and what trains, drawn from the model structure in the code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from fss.reports.figures.base import STRUCTURE, Column, Drawn, FigureKind, Run
from fss.reports.figures.style import BLACK, ORANGE, TEXT_WIDTH, canvas, style
from fss.results import ReportError

NEEDS = "nothing: fss figure reads it from the code"
FROZEN, SVF, RESIDUAL = "freeze", "svf", "svf_residual"
_GREY = "#E4E4E4"
_HATCH = "/////"
_BOX, _GAP, _HIGH = 0.64, 0.15, 0.5
_APART = 0.16
"""Gap between factors in inches."""
_SIDE = 0.24
"""Side of a square factor in inches; other factors are drawn to the same scale."""
_LETTERS = {"weight": "W", "U": "U", "S": "S", "p": "S'", "V": r"V$^\mathsf{T}$"}
_ORDER = ("U", "S", "p", "V")


def _structure(runs: Sequence[Run]) -> dict[str, Any]:
    """Read the structure file that the command line wrote."""
    for run in runs:
        path = run.folder / STRUCTURE
        if path.is_file():
            try:
                content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                found = {name: one["stages"] for name, one in content["strategies"].items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ReportError(f"{path} is damaged ({error}); fss figure 1 writes it anew") from error
            if {FROZEN, SVF, RESIDUAL} <= found.keys():
                return content
    raise ReportError(f"there is no {STRUCTURE}, which says what the code is made of: fss figure 1 writes and draws it")


def _figure1(runs: Sequence[Run]) -> Drawn:
    """Draw a frozen backbone above one with SVF, and one convolution as its factors."""
    content = _structure(runs)
    figure, ax = _sheet(3.65)
    with style():
        for top, letter, name in ((3.45, "a", FROZEN), (2.25, "b", SVF)):
            one = content["strategies"][name]
            total, tuned = _totals(one)
            ax.text(
                0.1, top, f"({letter}) {_describe(one)}: {tuned:,} of {total:,} values of the backbone train", va="top"
            )
            _row(ax, top - 0.2, one["stages"], content["head"])
        ax.text(0.1, 1.02, f"one of them, {content['layer']}, as a matrix and its factors:", va="top")
        weight = content["strategies"][FROZEN]["example"]["weight"]["shape"]
        right = _matrix(ax, 0.1, 0.48, "weight", weight, False)
        ax.text(right + 0.08, 0.48 + _SIDE / 2, "=", ha="center", va="center")
        _factors(ax, right + 0.17, 0.48, content["strategies"][SVF]["example"])
        _legend(ax)
    return Drawn(figure, _data(content, (FROZEN, SVF)), _caption1(content))


def _figure13(runs: Sequence[Run]) -> Drawn:
    """Draw the factors of both implementations of SVF."""
    content = _structure(runs)
    figure, ax = _sheet(2.2)
    rows = (
        (2.12, "i", SVF, "S itself trains, from its pretrained values"),
        (1.18, "ii", RESIDUAL, "S stays, S' = exp(p) trains: p starts at 0, S' at 1"),
    )
    with style():
        for top, letter, name, words in rows:
            one = content["strategies"][name]
            ax.text(0.1, top, f"({letter}) finetune={name}: {words}; {_totals(one)[1]:,} values train", va="top")
            ax.text(0.14, top - 0.56 + _SIDE / 2, "W =", va="center")
            _factors(ax, 0.46, top - 0.56, one["example"])
        _legend(ax)
    return Drawn(figure, _data(content, (SVF, RESIDUAL)), _caption13(content))


def _sheet(height: float) -> tuple[Figure, Axes]:
    """Return a figure of text width whose axes are in inches."""
    figure = canvas(columns=2, height=height)
    figure.set_layout_engine("none")
    with style():
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set_xlim(0, TEXT_WIDTH)
        ax.set_ylim(0, height)
        ax.set_axis_off()
    return figure, ax


def _totals(one: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of values of the plain backbone, and of values that train."""
    stages = one["stages"]
    return sum(s["plain"] for s in stages), sum(sum(s["trainable"].values()) for s in stages)


def _describe(one: Mapping[str, Any]) -> str:
    """Describe what was done to a backbone."""
    stages = [str(s["stage"]) for s in one["stages"] if s["factored"]]
    return f"SVF, convolutions of layers {', '.join(stages)} as factors" if stages else "frozen backbone"


def _row(ax: Axes, top: float, stages: Sequence[Mapping[str, Any]], head: int) -> None:
    """Draw the stages and the head in a row; factored stages show their factors."""
    left, middle = 0.58, top - _HIGH / 2
    ax.text(0.03, middle, "images,\nmask", va="center", fontsize=6)
    for stage in stages:
        _arrow(ax, left, middle)
        name = f"layer {stage['stage']}" if stage["stage"] else "stem"
        if stage["factored"]:
            ax.add_patch(Rectangle((left, top - _HIGH), _BOX, _HIGH, facecolor="white", edgecolor=BLACK, linewidth=0.6))
            _stage_factors(ax, left, top, stage)
            below = f"{name}: S {stage['values'].get('S', 0):,}\n{stage['factored']} convolutions"
        else:
            _box(ax, left, top - _HIGH, _BOX, _HIGH, name, bool(sum(stage["trainable"].values())))
            below = f"{stage['plain']:,}"
        ax.text(left + _BOX / 2, top - _HIGH - 0.05, below, ha="center", va="top", fontsize=6)
        left += _BOX + _GAP
    _arrow(ax, left, middle)
    _box(ax, left, top - _HIGH, _BOX, _HIGH, "head", head > 0)
    ax.text(left + _BOX / 2, top - _HIGH - 0.05, f"{head:,}", ha="center", va="top", fontsize=6)
    _arrow(ax, left + _BOX + _GAP, middle)


def _stage_factors(ax: Axes, left: float, top: float, stage: Mapping[str, Any]) -> None:
    """Draw the factors of a stage's convolutions as upright bars."""
    kinds = [kind for kind in _ORDER if kind in stage["values"]]
    widths = {"U": 0.19, "S": 0.12, "p": 0.12, "V": 0.19}
    space = (_BOX - sum(widths[kind] for kind in kinds)) / (len(kinds) + 1)
    for kind in kinds:
        left += space
        _box(ax, left, top - 0.43, widths[kind], 0.36, _LETTERS[kind], bool(stage["trainable"][kind]))
        left += widths[kind]


def _factors(ax: Axes, left: float, bottom: float, example: Mapping[str, Any]) -> float:
    """Draw the factors of one convolution to scale; return the right edge."""
    for kind in _ORDER:
        if kind in example:
            left = _matrix(ax, left, bottom, kind, example[kind]["shape"], example[kind]["trains"]) + _APART
    return left


def _matrix(ax: Axes, left: float, bottom: float, kind: str, shape: Sequence[int], trains: bool) -> float:
    """Draw a factor as a matrix with its size below; return the right edge."""
    rows, columns = shape[0], math.prod(shape[1:]) if len(shape) > 1 else shape[0]
    width = _SIDE * columns / rows
    _box(ax, left, bottom, width, _SIDE, "" if len(shape) == 1 else _LETTERS[kind], trains)
    below = f"{rows:,} x {columns:,}"
    if len(shape) == 1:
        ax.plot([left, left + width], [bottom + _SIDE, bottom], color=BLACK, linewidth=1.2, solid_capstyle="butt")
        ax.text(left + width / 2, bottom + _SIDE + 0.03, _LETTERS[kind], ha="center", va="bottom", fontsize=7)
        below = f"{rows:,}"
    ax.text(left + width / 2, bottom - 0.04, below, ha="center", va="top", fontsize=6)
    return left + width


def _box(ax: Axes, left: float, bottom: float, width: float, height: float, text: str, trains: bool) -> None:
    """Draw a box; trainable ones are orange and hatched, so that they stand out in greyscale, too."""
    face, hatch = (ORANGE, _HATCH) if trains else (_GREY, "")
    ax.add_patch(Rectangle((left, bottom), width, height, facecolor=face, hatch=hatch, edgecolor=BLACK, linewidth=0.6))
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.8} if trains and text else None
    ax.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=7, bbox=background)


def _arrow(ax: Axes, left: float, middle: float) -> None:
    """Draw an arrow across the gap before a box."""
    style_ = {"arrowstyle": "-|>", "linewidth": 0.7, "mutation_scale": 5, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (left, middle), (left - _GAP + 0.01, middle), arrowprops=style_)


def _legend(ax: Axes) -> None:
    patches = [
        Patch(facecolor=_GREY, edgecolor=BLACK, linewidth=0.6, label="frozen"),
        Patch(facecolor=ORANGE, edgecolor=BLACK, linewidth=0.6, hatch=_HATCH, label="trains"),
    ]
    ax.legend(handles=patches, loc="lower center", ncols=2, frameon=False, borderaxespad=0.1)


def _data(content: Mapping[str, Any], names: Sequence[str]) -> dict[str, Column]:
    """List the stages of every strategy, and the head."""
    rows: list[tuple[str, str, int, int, int, int]] = []
    for name in names:
        for stage in content["strategies"][name]["stages"]:
            part, tuned = f"layer{stage['stage']}", sum(stage["trainable"].values())
            rows.append((name, part, stage["convolutions"], stage["factored"], stage["plain"], tuned))
        rows.append((name, "head", 0, 0, content["head"], content["head"]))
    columns = ("strategy", "part", "convolutions", "factored", "plain_values", "trainable_values")
    return {column: [row[i] for row in rows] for i, column in enumerate(columns)}


def _caption1(content: Mapping[str, Any]) -> str:
    return (
        f"(a) A frozen {content['backbone']} and a head ({content['method']}) that trains; (b) SVF: every convolution "
        "of a tuned stage, shortcuts included, is replaced by its singular value decomposition, whose diagonal trains. "
        "Numbers: values of each stage, of its diagonals, and of what trains of the head, counted in the code with its "
        "default options; batch norm is frozen in both. The factors are drawn to scale."
    )


def _caption13(content: Mapping[str, Any]) -> str:
    return (
        f"Two implementations of SVF, on {content['layer']} of {content['backbone']}: (i) S trains; (ii) S is frozen "
        "and multiplied by a second diagonal S' = exp(p), which trains from 1, so that no singular value can "
        "change its sign. U and V are frozen in both. Numbers: sizes of the factors, counted in the code. Table 23 "
        "compares both."
    )


FIGURES = (
    FigureKind("1", "Schematic: frozen backbone, and SVF", NEEDS, None, _figure1, schematic=True),
    FigureKind("13", "Schematic: two implementations of SVF", NEEDS, None, _figure13, schematic=True),
)
