"""The gap between training and novel classes on fabricated runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.reports.figures.recordings import FREEZE, SVF, curves, full, record

from fss.reports.figures.base import Drawn, find_runs
from fss.reports.figures.gap import FIGURES
from fss.reports.figures.style import save
from fss.results import ReportError


def draw(folder: Path) -> Drawn:
    return FIGURES[0].draw(find_runs([folder]))


def finished(folder: Path, tuned: dict[str, Any], size: int, novel: float, train: float | None, **key: Any) -> Path:
    record(folder, tuned, **key)
    content = json.loads((folder / "result.json").read_text())
    content["parameters"]["backbone_trainable"] = size
    content["scores"]["miou"] = novel
    (folder / "result.json").write_text(json.dumps(content))
    if train is not None:
        curves(folder, epochs=4, first=train - 4)
    return folder


def test_one_point_per_strategy_with_the_range_of_its_folds(tmp_path: Path) -> None:
    finished(tmp_path / "a", FREEZE, 0, 40.0, 50.0)
    finished(tmp_path / "b", SVF, 12544, 45.0, 52.0)
    finished(tmp_path / "c", SVF, 12544, 41.0, 54.0, fold=1)
    finished(tmp_path / "d", full(2, 3, 4), 2_000_000, 38.0, 80.0)
    finished(tmp_path / "e", full(4), 1_000_000, 39.0, 70.0)
    drawn = draw(tmp_path)
    assert drawn.data["strategy"] == ["freeze", "svf", "svf", "full, stages 4", "full, stages 2,3,4"]
    assert drawn.data["gap"] == pytest.approx([10, 7, 13, 31, 42])
    assert drawn.data["backbone_trainable"] == [0, 12544, 12544, 1_000_000, 2_000_000]
    ax = drawn.figure.axes[0]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
    assert (12544, pytest.approx(10)) in points, "the mean of both folds"
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim()[0] < 0, "the frozen backbone has a place"
    assert "folds [0, 1]" in drawn.caption
    for path in save(drawn, tmp_path / "out", "gap"):
        assert path.stat().st_size > 100


def test_left_out_runs_are_counted(tmp_path: Path) -> None:
    finished(tmp_path / "a", FREEZE, 0, 40.0, 50.0)
    finished(tmp_path / "b", SVF, 12544, 45.0, 52.0)
    finished(tmp_path / "c", SVF, 12544, 45.0, None, seed=1)
    finished(tmp_path / "d", SVF, 12544, 45.0, 60.0, method="pfenet")
    record(tmp_path / "e", full(2), finished=False)
    curves(tmp_path / "e")
    drawn = draw(tmp_path)
    assert drawn.data["strategy"] == ["freeze", "svf"]
    assert "without recording/curves.csv, which recording=on writes: 1, left out" in drawn.caption
    assert "of other settings: 1, left out" in drawn.caption
    assert "that have not finished: 1, left out" in drawn.caption


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    finished(tmp_path / "a", SVF, 12544, 45.0, None)
    with pytest.raises(ReportError, match=r"none with recording/curves\.csv.*experiment=figure07"):
        draw(tmp_path)
    record(tmp_path / "b", SVF, finished=False)
    curves(tmp_path / "b")
    with pytest.raises(ReportError, match=r"none of the 1 recorded runs has finished"):
        draw(tmp_path)
