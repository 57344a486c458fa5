"""A failure ends its run alone, is counted wherever it lies, and reaches sweepers that learn from scores."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from fss.errors import FssError
from fss.runs import attempts
from fss.runs.attempts import Sweep, attempt, failures, read_failure
from fss.runs.job import Job

CONFIG: dict[str, Any] = {
    "overwrite": False, "trainer": {"devices": 1}, "data": {}, "recording": {"enabled": False},
    "method": {"name": "baseline"},
}  # fmt: skip


def job(folder: Path) -> Job:
    return Job(CONFIG, folder, folder.name)


def fail(job: Job) -> float:
    raise FssError("no luck")


@pytest.fixture(autouse=True)
def _sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSS_SWEEP", "this")


def test_a_folder_that_cannot_be_claimed_ends_only_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "group").write_text("a file where the group's folder should be")
    assert math.isnan(attempt(job(tmp_path / "group" / "run"), lambda _: 1.0, Sweep()))
    assert [name for name, _ in failures([Path("multirun")], "this")] == ["run"], "noted elsewhere"
    with pytest.raises(OSError, match=r"group"):
        attempt(job(tmp_path / "group" / "run"), lambda _: 1.0)


@pytest.mark.parametrize("depth", ["run", "a/run", "a/b/c/run"])
def test_failures_are_found_at_any_depth(depth: str, tmp_path: Path) -> None:
    assert math.isnan(attempt(job(tmp_path / depth), fail, Sweep()))
    assert failures([tmp_path], "this") == [("run", "no luck")]
    assert failures([tmp_path, tmp_path / depth], "this") == [("run", "no luck")], "counted once"
    assert failures([tmp_path], "another") == []


def test_an_optimising_sweep_gets_the_exception(tmp_path: Path) -> None:
    with pytest.raises(FssError, match="no luck"):
        attempt(job(tmp_path / "run"), fail, Sweep(optimising=True))
    note = read_failure(tmp_path / "run")
    assert note is not None
    assert note["error"] == "no luck"


def test_a_run_that_another_process_has_is_left_out_or_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def inner(own: Job) -> float:
        assert math.isnan(attempt(own, fail, Sweep())), "never a number for a run that somebody else does"
        for sweep in (None, Sweep(optimising=True)):
            with pytest.raises(FssError, match="works on this very run"):
                attempt(own, fail, sweep)
        return 1.0

    monkeypatch.setattr(attempts, "finished", lambda job: None)
    assert attempt(job(tmp_path / "run"), inner) == 1.0


def test_a_single_run_raises_what_happened(tmp_path: Path) -> None:
    with pytest.raises(FssError, match="no luck"):
        attempt(job(tmp_path / "run"), fail)
    assert not (tmp_path / "run" / "failed.json").exists()


def test_a_note_can_be_read_by_people(tmp_path: Path) -> None:
    attempt(job(tmp_path / "run"), fail, Sweep())
    content = json.loads((tmp_path / "run" / "failed.json").read_text())
    assert content["text"] == "no luck"
    assert os.environ["FSS_SWEEP"] == content["sweep"]
