"""Heads by strategy: means over folds and seeds, gaps, and what makes a comparison uneven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.reports.fabricate_runs import write_run

from fss.reports.comparison_table import markdown
from fss.reports.head_table import compares_heads, head_table
from fss.results import ReportError, Result, load_result


def run(tmp_path: Path, method: str, finetune: str, fold: int, miou: float, **changes: Any) -> Result:
    named = {"key__method": method, "key__finetune": finetune, "key__fold": fold, "scores__miou": miou}
    if finetune == "freeze":
        named["parameters__backbone_trainable"] = 0
    config = {"method": {"name": method}, "protocol": {"name": "suite"}, **changes.pop("config", {})}
    folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
    return load_result(write_run(folder, **{**named, "episodes__hash": f"of fold {fold}", "config": config, **changes}))


def test_means_over_folds_and_seeds(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, "svelte", "svf", 0, 50.0),
        run(tmp_path, "svelte", "svf", 0, 54.0, key__seed=1),  # fold 0: 52
        run(tmp_path, "svelte", "svf", 1, 60.0),
        run(tmp_path, "svelte", "freeze", 0, 40.0),
        run(tmp_path, "svelte", "freeze", 1, 43.0),
        run(tmp_path, "plain", "freeze", 1, 30.0),
        run(tmp_path, "base_learner", "full", 0, 99.0),
    ]
    assert compares_heads(runs)
    sheet = head_table(runs)
    assert sheet.header == ["head", "freeze", "svf"]
    assert sheet.rows == [["plain", "30.00 (fold 1 alone)", ""], ["svelte", "41.50", "56.00"]]
    assert not sheet.warnings
    assert "Protocol suite; recipe paper." in sheet.notes
    assert "folds 0, 1" in sheet.heading
    assert "99" not in markdown(sheet)


def test_one_head_is_no_comparison(tmp_path: Path) -> None:
    runs = [run(tmp_path, "svelte", name, 0, 1.0) for name in ("svf", "freeze")]
    assert not compares_heads(runs)
    assert not compares_heads([*runs, run(tmp_path, "base_learner", "full", 0, 1.0)])


def test_settings_that_differ_have_rows_of_their_own(tmp_path: Path) -> None:
    runs = [run(tmp_path, m, "svf", 0, 1.0 + k, key__shot=k) for m in ("a", "b") for k in (1, 5)]
    assert head_table(runs).header == ["head", "shot", "svf"]
    assert head_table(runs).rows == [["a", "1", "2.00"], ["a", "5", "6.00"], ["b", "1", "2.00"], ["b", "5", "6.00"]]


def test_what_is_no_comparison_of_like_with_like(tmp_path: Path) -> None:
    own = {"method": {"name": "b", "width": 8}, "recipe": {"optimizers": {"transformer": {"lr": 1}}}}
    even = [run(tmp_path, "a", "svf", 0, 1.0), run(tmp_path, "b", "svf", 0, 1.0, config=own)]
    assert head_table(even).warnings == []
    uneven = [
        run(tmp_path, "a", "svf", 0, 1.0, config={"data": {"epochs": 2}}),
        run(tmp_path, "b", "svf", 0, 1.0, config={"data": {"epochs": 8}, "protocol": {"name": "hsnet"}}),
    ]
    assert head_table(uneven).warnings == [
        "heads differ in more than the head: protocol.name=suite (a), hsnet (b)",
        "heads differ in more than the head: data.epochs=2 (a), 8 (b)",
    ]
    other = run(tmp_path, "b", "svf", 0, 1.0, episodes__hash="others")
    assert "not tested on the same episodes" in head_table([even[0], other]).warnings[0]


def test_foreground_everywhere(tmp_path: Path) -> None:
    runs = [run(tmp_path, m, "svf", f, 9.0, scores__miou_all_foreground=20.0 + f) for m in ("a", "b") for f in (0, 1)]
    assert "Foreground everywhere scores 20.00 to 21.00, by fold and shots." in head_table(runs).notes
    assert "Foreground everywhere scores 20.00." in head_table([runs[0], runs[2]]).notes


def test_runs_that_the_table_cannot_tell_apart(tmp_path: Path) -> None:
    runs = [run(tmp_path, "a", "svf", 0, 1.0), run(tmp_path, "a", "svf", 0, 1.0, config={"data": {"size": 9}})]
    with pytest.raises(ReportError, match=r"run0/result\.json and .*run1/result\.json are different runs of a svf"):
        head_table(runs)
