"""Figures 2, 3 and 7: one chart per strategy, the numbers of the recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.reports.figures import recordings
from tests.reports.figures.recordings import FREEZE, SVF, full, part

from fss.reports.figures.base import Drawn, find_runs, kinds
from fss.reports.figures.curves import PANELS
from fss.reports.figures.style import save
from fss.results import ReportError

EVERY: dict[str, list[dict[str, Any]]] = {
    "2": [FREEZE, full(0, 1, 2, 3, 4), SVF],
    "3": [FREEZE, part(1, 3), part(1, stages=(1, 2, 3, 4)), SVF],
    "7": [
        FREEZE, full(1, 2, 3, 4), part(1, 3), part(1, 3, stages=(3, 4)), part(1, 3, stages=(4,)), part(3), part(1), SVF,
    ],
}  # fmt: skip
METHODS = {"2": "pfenet", "3": "baseline", "7": "baseline"}


def write(folder: Path, name: str, tuned: list[dict[str, Any]], **key: Any) -> None:
    for i, one in enumerate(tuned):
        run = recordings.record(folder / f"run{i}", one, method=METHODS[name], **key)
        recordings.curves(run, first=10.0 * (i + 1))


def draw(name: str, *folders: Path) -> Drawn:
    return kinds()[name].draw(find_runs(folders))


@pytest.mark.parametrize("name", EVERY)
def test_numbers_and_files(tmp_path: Path, name: str) -> None:
    write(tmp_path / "runs", name, EVERY[name])
    drawn = draw(name, tmp_path / "runs")
    assert drawn.missing == ()
    titles = [panel.title for panel in PANELS[name]]
    assert list(dict.fromkeys(drawn.data["panel"])) == titles
    assert list(drawn.data["finetune"])[::5] == [tuned["name"] for tuned in EVERY[name]]
    assert list(drawn.data["epoch"]) == [1, 2, 3, 4, 5] * len(titles)
    expected = [10.0 * (i + 1) + epoch for i in range(len(titles)) for epoch in range(1, 6)]
    assert list(drawn.data["train_miou"]) == expected
    assert list(drawn.data["novel_miou"]) == [value / 2 for value in expected]
    assert [axes.get_title() for axes in drawn.figure.axes] == [
        f"({letter}) {title}" for letter, title in zip("abcdefgh", titles, strict=False)
    ]
    dashed, solid = drawn.figure.axes[0].get_lines()
    assert (dashed.get_linestyle(), solid.get_linestyle()) == ("--", "-")
    assert dashed.get_marker() != solid.get_marker()
    assert list(solid.get_ydata()) == [value / 2 for value in expected[:5]]
    assert f"Figure {name}." in drawn.caption
    assert "(a) frozen: 15.0 | 7.5, best 7.5 in epoch 5." in drawn.caption
    pdf, png, _, _ = save(drawn, tmp_path / "out", "x")
    assert b"/FontFile2" in pdf.read_bytes()
    assert png.stat().st_size > 10_000


def test_the_runs_of_the_experiment_fill_every_chart() -> None:
    for name, panels in PANELS.items():
        assert len(EVERY[name]) == len(panels)
        assert len({panel.row for panel in panels}) == len(panels)


def test_a_missing_run_is_named_with_its_command(tmp_path: Path) -> None:
    write(tmp_path, "3", [FREEZE, SVF])
    drawn = draw("3", tmp_path)
    assert drawn.missing == (
        "layers 2-4: python train.py -m experiment=figure03 +row=stages234",
        "every 1x1: python train.py -m experiment=figure03 +row=every1x1",
    )
    assert drawn.figure.axes[1].texts[0].get_text() == "no run"
    assert "(b) layers 2-4: no run." in drawn.caption


def test_only_runs_of_one_setting_stand_side_by_side(tmp_path: Path) -> None:
    write(tmp_path / "fold0", "3", [FREEZE], fold=0)
    write(tmp_path / "fold2", "3", EVERY["3"], fold=2)
    write(tmp_path / "toy", "3", EVERY["3"], fold=1, data="shapes")
    drawn = draw("3", tmp_path)
    assert set(drawn.data["run"]) == {str(tmp_path / "fold2" / f"run{i}") for i in range(4)}
    assert "pascal fold 2" in drawn.caption


def test_other_methods_and_other_strategies_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, "3", EVERY["3"])
    with pytest.raises(ReportError, match=r"none of the 4 runs .*method=pfenet.*experiment=figure02"):
        draw("2", tmp_path)
    other = recordings.record(tmp_path / "other", {**SVF, "stages": [4]})
    recordings.curves(other)
    with pytest.raises(ReportError, match="none of the 1 runs"):
        draw("3", other)


def test_runs_without_recordings(tmp_path: Path) -> None:
    recordings.record(tmp_path / "a", SVF)
    with pytest.raises(ReportError, match=r"1 run found, none with recording/curves.csv.*recording=on overwrite=true"):
        draw("3", tmp_path)
    with pytest.raises(ReportError, match=r"no run found\. Make one with: python train\.py -m experiment=figure03"):
        draw("3", tmp_path / "nothing")


def test_epochs_without_validation(tmp_path: Path) -> None:
    recordings.curves(recordings.record(tmp_path / "a", SVF, finished=False), epochs=4, holes=True)
    drawn = draw("3", tmp_path)
    assert list(drawn.data["novel_miou"]) == ["", 6.0, "", 7.0]
    assert list(drawn.figure.axes[3].get_lines()[1].get_xdata()) == [2, 4]


@pytest.mark.parametrize(
    "text", ["", "epoch,train_miou,novel_miou\n", "epoch,train_miou\n1,2\n", "a\x00", "epoch\nx\n"]
)
def test_damaged_curves(tmp_path: Path, text: str) -> None:
    folder = recordings.record(tmp_path / "a", SVF)
    (folder / "recording" / "curves.csv").write_text(text)
    with pytest.raises(ReportError, match=r"curves\.csv.*recording=on overwrite=true"):
        draw("3", tmp_path)
