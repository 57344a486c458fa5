"""Style of all figures, readable in greyscale and for colour-blind readers, and writing of their files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fss.errors import FssError
from fss.files import atomic
from fss.reports.figures.base import Column, Drawn

TEXT_WIDTH, COLUMN_WIDTH = 5.5, 2.7
"""Text width of NeurIPS papers in inches, and about half of it."""
DPI = 200

BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
"""Okabe and Ito's palette, safe for colour-blind readers."""
GREY = "#7F7F7F"


@dataclass(frozen=True)
class Line:
    """Style of a series, distinguishable from the others without colour, too."""

    colour: str
    style: str | tuple[int, tuple[float, ...]]
    marker: str
    hatch: str


LINES = (
    Line(BLUE, "-", "o", ""),
    Line(RED, "--", "s", "////"),
    Line(GREEN, "-.", "^", "...."),
    Line(ORANGE, ":", "D", "xxxx"),
    Line(BLACK, (0, (5, 1, 1, 1, 1, 1)), "v", "----"),
    Line(PINK, (0, (1, 1)), "P", "\\\\\\\\"),
    Line(SKY, (0, (7, 2)), "X", "oooo"),
)
"""To be used in this order, cyclically if there are more series."""

RC: Any = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib, hence the same on every machine
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 2.5,
    "hatch.linewidth": 0.4,
    "pdf.fonttype": 42,  # fonts embedded as TrueType: searchable, and accepted by journals
    "savefig.facecolor": "white",
}


def canvas(columns: int = 1, height: float = 2.0, rows: int = 1) -> Figure:
    """Make an empty figure of a paper's width.

    Text, lines and axes must be added within ``with style():`` to have the paper's sizes.

    Args:
        columns: 1: half of the text width; 2: all of it.
        height: height of each row in inches.
        rows: number of rows of axes.

    Returns:
        The figure, with constrained layout and a canvas to draw on.

    Raises:
        ValueError: if the columns are neither 1 nor 2.
    """
    if columns not in (1, 2):
        raise ValueError(f"columns={columns}: a figure is 1 or 2 columns wide")
    with style():
        figure = Figure(
            figsize=(COLUMN_WIDTH if columns == 1 else TEXT_WIDTH, rows * height),
            layout="constrained",
            facecolor="white",
        )
        FigureCanvasAgg(figure)
    return figure


@contextmanager
def style() -> Iterator[None]:
    """Make matplotlib use the paper's sizes, which artists read when they are created.

    Yields:
        Nothing.
    """
    with mpl.rc_context(RC):
        yield


def plain(axes: Axes) -> None:
    """Hide the top and right spines, and draw faint horizontal grid lines.

    Args:
        axes: changed in place.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)


def save(drawn: Drawn, folder: Path, stem: str) -> list[Path]:
    """Write PDF, PNG, the data as CSV and the caption; each file is complete or absent.

    Args:
        drawn: the figure.
        folder: created if missing.
        stem: file name without extension.

    Returns:
        The files.

    Raises:
        FssError: a file cannot be written, e.g. because the disk is full.
        ValueError: the columns of the data differ in length.
    """
    pdf = _rendered(drawn.figure, "pdf")
    drawn.figure.set_layout_engine("none")  # the layout is final; computing it again takes as long as drawing
    contents = {
        "pdf": pdf,
        "png": _rendered(drawn.figure, "png"),
        "csv": table(drawn.data).encode(),
        "txt": (drawn.caption.strip() + "\n").encode(),
    }
    paths = [folder / f"{stem}.{ending}" for ending in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        try:
            with atomic(path) as file:
                file.write(content)
        except OSError as error:
            raise FssError(
                f"Cannot write {path}: {error.strerror or error}. Make room there or name another folder with --out, "
                "then type the same command again."
            ) from error
    return paths


def table(data: Mapping[str, Column]) -> str:
    """Format columns as CSV.

    Args:
        data: column name -> values.

    Returns:
        The CSV text with a header.

    Raises:
        ValueError: the columns differ in length.
    """
    lengths = {name: len(values) for name, values in data.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of one table have one length, these have {lengths}")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(data)
    writer.writerows(zip(*data.values(), strict=True))
    return text.getvalue()


def _rendered(figure: Figure, kind: str) -> bytes:
    """Render in memory, so that nothing is written unless every format can be drawn."""
    metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}  # equal data gives equal bytes
    out = io.BytesIO()
    with style():
        figure.savefig(out, format=kind, dpi=DPI, metadata=metadata)
    return out.getvalue()
