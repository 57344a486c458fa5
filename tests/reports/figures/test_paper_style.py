"""The files of a figure: sizes, embedded fonts, equal data equal bytes, nothing half-written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.image import imread

from fss.errors import FssError
from fss.reports.figures.base import Drawn
from fss.reports.figures.style import COLUMN_WIDTH, DPI, LINES, TEXT_WIDTH, canvas, save, style, table


def drawn(columns: int = 1, height: float = 1.5) -> Drawn:
    with style():
        figure = canvas(columns, height=height)
        axes = figure.subplots()
        axes.plot([0, 1], [2, 3], label="a line")
        axes.set_xlabel("epoch")
        axes.legend()
    return Drawn(figure, {"x": [0, 1], "name": ["a, b", "c"]}, "What it shows. ")


@pytest.mark.parametrize(("columns", "width"), [(1, COLUMN_WIDTH), (2, TEXT_WIDTH)])
def test_four_files(tmp_path: Path, columns: int, width: float) -> None:
    paths = save(drawn(columns), tmp_path / "new" / "folder", "figure99")
    assert [path.name for path in paths] == [f"figure99.{ending}" for ending in ("pdf", "png", "csv", "txt")]
    assert sorted(paths) == sorted((tmp_path / "new" / "folder").iterdir())
    pdf = paths[0].read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf, "TrueType fonts are embedded"
    assert b"/Type3" not in pdf
    height, across, _ = imread(paths[1]).shape
    assert (across, height) == (round(width * DPI), round(1.5 * DPI))
    assert paths[2].read_text() == 'x,name\n0,"a, b"\n1,c\n'
    assert paths[3].read_text() == "What it shows.\n"


def test_equal_data_give_equal_files(tmp_path: Path) -> None:
    first, second = (save(drawn(), tmp_path / name, "f") for name in ("a", "b"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_the_style_ends_with_its_context() -> None:
    before = mpl.rcParams["font.size"], mpl.rcParams["pdf.fonttype"]
    with style():
        assert mpl.rcParams["font.size"] == 7
    assert (mpl.rcParams["font.size"], mpl.rcParams["pdf.fonttype"]) == before


def test_lines_differ_without_colour() -> None:
    assert len({(line.style, line.marker) for line in LINES}) == len(LINES) == len({line.hatch for line in LINES})


def test_a_full_disk_leaves_nothing_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(drawn(), tmp_path, "f")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FssError, match=r"Cannot write .*f\.pdf: No space left on device.*--out"):
        save(drawn(2), tmp_path, "f")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(FssError, match="--out"):
        save(drawn(), tmp_path / "out", "f")


def test_columns_of_one_length() -> None:
    with pytest.raises(ValueError, match="'b': 1"):
        table({"a": [1, 2], "b": [1]})
    with pytest.raises(ValueError, match="columns=3"):
        canvas(3)
