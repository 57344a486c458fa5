"""overwrite=true clears a run once per request: not when a job is requeued, nor on every machine of a sweep."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fss.runs import overwriting
from fss.runs.overwriting import clear, must_clear


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, an hour old."""
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "FSS_SWEEP", "FSS_SWEEP_BEGUN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "checkpoints").mkdir()
    for name in ("result.json", "checkpoints/last.ckpt"):
        write(tmp_path / name, -3600)
    return tmp_path


def write(path: Path, age: float = 0.0) -> None:
    path.write_text("{}")
    os.utime(path, (time.time() + age,) * 2)


def test_a_request_clears_once(folder: Path) -> None:
    assert must_clear(folder)
    clear(folder)
    assert not (folder / "result.json").exists()
    assert not (folder / "checkpoints/last.ckpt").exists()
    write(folder / "checkpoints/last.ckpt", -5)
    assert not must_clear(folder)
    clear(folder)
    assert (folder / "checkpoints/last.ckpt").exists()


def test_a_requeued_job_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    clear(folder)
    write(folder / "checkpoints/last.ckpt")
    monkeypatch.setattr(overwriting, "_START", time.time() + 60)  # SLURM starts the same job again
    assert not must_clear(folder)
    clear(folder)
    assert (folder / "checkpoints/last.ckpt").exists()
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert must_clear(folder), "another job is another request"


def test_machines_of_one_sweep_run_a_cell_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for name, begun in (("one", now - 30), ("two", now - 20)):
        monkeypatch.setenv("FSS_SWEEP", name)
        monkeypatch.setenv("FSS_SWEEP_BEGUN", str(begun))
        if name == "one":
            assert must_clear(folder)
            clear(folder)
            write(folder / "result.json", -10)
        assert not must_clear(folder), "written after the second machine had been asked"
    monkeypatch.setenv("FSS_SWEEP", "three")
    monkeypatch.setenv("FSS_SWEEP_BEGUN", str(now - 5))
    assert must_clear(folder), "asked again after the run was finished"


def test_nothing_there_is_nothing_to_clear(tmp_path: Path) -> None:
    assert not must_clear(tmp_path)
