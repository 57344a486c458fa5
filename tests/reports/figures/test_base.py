"""Figures are found by themselves, and so are the runs that they are drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.reports.fabricate_runs import write_run
from tests.reports.figures import recordings

from fss.reports.figures.base import find_runs, kinds
from fss.results import ReportError

PAPER = [str(number) for number in range(1, 14)]
FURTHER = {"foreground", "gallery", "gap", "heatmap"}
ROOT = Path(__file__).resolve().parents[3]


def test_every_figure_is_there() -> None:
    found = kinds()
    assert list(found)[: len(PAPER)] == PAPER, "the paper's first, in their order"
    assert found.keys() - set(PAPER) >= FURTHER
    for name, kind in found.items():
        assert kind.name == name
        assert kind.title
        assert kind.needs
        assert "\n" not in kind.title + kind.needs, "one line each in the list"


def test_every_experiment_that_is_named_exists() -> None:
    for kind in kinds().values():
        if kind.experiment is not None:
            assert (ROOT / "conf" / "experiment" / f"{kind.experiment}.yaml").is_file(), kind.name
            assert f"experiment={kind.experiment}" in kind.needs, kind.name


def test_every_figure_says_what_to_type_where_there_is_no_run() -> None:
    for name, kind in kinds().items():
        if kind.experiment is not None:
            with pytest.raises(ReportError, match=f"experiment={kind.experiment}") as caught:
                kind.draw([])
            assert str(caught.value), name


def test_runs_are_found_at_any_depth_and_once(tmp_path: Path) -> None:
    recordings.record(tmp_path / "group" / "a", recordings.SVF, seed=7)
    training = recordings.record(tmp_path / "group" / "b", recordings.FREEZE, finished=False, fold=3)
    write_run(tmp_path / "deep" / "er" / "c")
    write_run(tmp_path / "deep" / "unfinished", status="running")
    found = find_runs([tmp_path / "group", tmp_path, tmp_path / "group" / "a", tmp_path / "not there"])
    assert [run.folder.name for run in found] == ["a", "b", "c", "unfinished"]
    a, b, c, unfinished = found
    assert a.result is not None
    assert a.label() == "baseline, svf, pascal fold 0, 1-shot, seed 7"
    assert b.result is None
    assert b.label() == "baseline, freeze, pascal fold 3, 1-shot, seed 321"
    assert c.about["key"]["finetune"] == "svf"
    assert (unfinished.result, unfinished.about, unfinished.label()) == (None, {}, "unfinished")
    (training / "recording" / "about.json").write_text("{cut")
    (again,) = find_runs([training])
    assert again.label() == "b"


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a").write_text("{")
    with pytest.raises(ReportError, match="damaged or truncated"):
        find_runs([tmp_path])
