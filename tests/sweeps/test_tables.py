"""A table as a user meets it: refused without -m, a row at toy size, and its report."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.programs import call


def test_a_table_is_a_sweep(home: Path) -> None:
    code, text = call(home, "train.py", "experiment=table05")
    assert code == 2
    assert "add -m, as python train.py -m experiment=table05" in text
    assert "Traceback" not in text
    code, text = call(home, "train.py", "-m", "experiment=table05", "finetune=bn")
    assert code == 2
    assert "finetune=bn chooses no row of this sweep: its rows have finetune freeze, full, part, svf" in text
    assert "Traceback" not in text


def test_a_row_at_toy_size_and_its_report(home: Path) -> None:
    words = ["-m", "experiment=table05", "+size=smoke", "+row=t05r01,t05r06", "fold=1"]
    code, text = call(home, "train.py", *words)
    assert code == 0, text
    assert len(list((home / "multirun/smoke").glob("*/result.json"))) == 2
    code, text = call(home, "fss", "report", "table05")
    assert code == 0, text
    assert "TOY SIZE" in text
    assert text.count("1 of 4 folds") == 2
    assert text.count("not run") == 4
    assert "67.14" not in text
    folder = home / "multirun/reports"
    assert {p.name for p in folder.iterdir()} == {f"table05.{ending}" for ending in ("md", "tex", "csv", "html")}
    code, text = call(home, "fss", "report", "table05", "--size", "full", "--out", "elsewhere")
    assert code == 0, text
    assert "67.14" in (home / "elsewhere/table05.md").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("table25",), "give table01 to table24"),
        (("table05", "--size", "big"), "auto, full, smoke"),
        (("nowhere",), "nowhere"),
    ],
)
def test_wrong_reports(home: Path, words: tuple[str, ...], told: str) -> None:
    code, text = call(home, "fss", "report", *words)
    assert code == 2
    assert told in text
    assert "Traceback" not in text
