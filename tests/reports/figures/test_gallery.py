"""The failure gallery on fabricated recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.reports.fabricate_runs import write_run
from tests.reports.figures.looked import write_gallery
from tests.reports.figures.recordings import SVF, record

from fss.reports.figures.base import Drawn, find_runs
from fss.reports.figures.gallery import FIGURES, class_scores
from fss.reports.figures.style import save
from fss.results import ReportError


def draw(folder: Path) -> Drawn:
    return FIGURES[0].draw(find_runs([folder]))


def test_every_class_comes_before_a_second_of_any(tmp_path: Path) -> None:
    write_gallery(tmp_path / "run")
    drawn = draw(tmp_path)
    shown = list(zip(drawn.data["kind"], drawn.data["class"], np.round(drawn.data["iou"], 6), strict=True))
    assert shown[:8] == [
        ("worst", "class_0", 0), ("worst", "class_1", 1), ("worst", "class_2", 2), ("worst", "class_0", 10),
        ("best", "class_0", 100), ("best", "class_1", 99), ("best", "class_2", 98), ("best", "class_0", 90),
    ]  # fmt: skip
    assert [row[:2] for row in shown[8:]] == [("class", "ring_stripes"), ("class", "star_dots")]
    texts = [text.get_text() for ax in drawn.figure.axes for text in ax.texts]
    assert texts[:2] == ["class 0, IoU 0", "class 0, IoU 100"]
    for path in save(drawn, tmp_path / "out", "gallery"):
        assert path.stat().st_size > 100


def test_bars_have_the_intervals_of_the_result(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(
        run,
        scores__per_class={"ring": 50.0, "star": 30.0, "none": None},
        scores__class_intervals={"ring": [48.5, 51.0], "star": [0.0, 60.0], "none": [float("nan"), float("nan")]},
        scores__class_episodes={"ring": 6, "star": 2, "none": 0},
    )
    ring, star, none = class_scores(find_runs([run])[0])
    assert (ring.iou, ring.low, ring.high, ring.episodes) == (50, 48.5, 51, 6)
    assert (star.low, star.high, star.episodes) == (0, 60, 2)
    assert np.isnan([none.iou, none.low, none.high]).all()
    assert none.episodes == 0


def test_bars_without_intervals(tmp_path: Path) -> None:
    run = write_gallery(tmp_path / "run")
    assert all(np.isnan(one.low) for one in class_scores(find_runs([run])[0]))
    assert "intervals" not in draw(tmp_path).caption


def test_many_classes_and_a_run_without_result(tmp_path: Path) -> None:
    write_gallery(tmp_path / "run", classes=20, each=1)
    (tmp_path / "run" / "result.json").unlink()
    drawn = draw(tmp_path)
    assert drawn.data["class"] == [f"class_{i}" for i in range(4)] * 2
    assert any("when the run has finished" in text.get_text() for ax in drawn.figure.axes for text in ax.texts)


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    record(tmp_path / "plain", SVF)
    with pytest.raises(ReportError, match=r"none with recording/gallery\.npz\. Make one with: python train\.py"):
        draw(tmp_path)
    run = write_gallery(tmp_path / "run", iou=np.zeros(3))
    with pytest.raises(ReportError, match=r"gallery\.npz is damaged .*differ in length"):
        draw(tmp_path)
    (run / "recording" / "gallery.npz").write_bytes(b"")
    with pytest.raises(ReportError, match=r"gallery\.npz is damaged"):
        draw(tmp_path)
