"""Sweeps: no failure stops the others, nothing runs twice, and what was killed is taken up again."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.programs import TINY, Program, call

from fss.results import load_result
from fss.runs.attempts import read_failure

QUICK = (*TINY, "logger=none", "previews=0", "debug=one_batch")
SHORT = (*TINY, "logger=none", "previews=0", "data.epochs=2", "data.test_episodes=6", "trainer.limit_train_batches=4")


@pytest.fixture
def place(drawn: Path, tmp_path: Path) -> Path:
    return furnished(tmp_path, drawn)


def furnished(folder: Path, drawn: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "data/shapes").symlink_to(drawn)
    return folder


def runs(home: Path, group: str = "runs") -> dict[str, Path]:
    return {p.name: p for p in (home / "multirun" / group).iterdir() if p.is_dir()}


def wait_until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_failure_does_not_stop_the_others(place: Path) -> None:
    code, text = call(place, "train.py", "-m", *QUICK, "shot=200,1")
    assert code == 2, text
    assert "1 of this sweep's runs failed" in text
    assert "fewer than shot + 1 = 201" in text.split("runs failed")[1]
    found = runs(place, "debug")
    (failed,) = (p for n, p in found.items() if "-200shot" in n)
    (finished,) = (p for n, p in found.items() if "-1shot" in n)
    assert load_result(finished / "result.json").key.shot == 1
    note = read_failure(failed)
    assert note is not None
    assert "fewer than shot + 1 = 201" in note["error"]
    assert {p.name for p in failed.iterdir()} <= {"failed.json", "train.log"}
    code, text = call(place, "train.py", "-m", *QUICK, "shot=200,1")
    assert code == 2, text
    assert "Already finished" in text
    code, text = call(place, "train.py", *QUICK, "shot=200")
    assert code == 2, text
    assert "fewer than shot + 1 = 201" in text
    assert not failed.exists(), "alone, a wrong value leaves nothing behind"


def test_a_damaged_result_is_a_failure_of_its_run_alone(place: Path) -> None:
    code, text = call(place, "train.py", "-m", *QUICK, "seed=1")
    assert code == 0, text
    (folder,) = runs(place, "debug").values()
    (folder / "result.json").write_text("{")
    code, text = call(place, "train.py", "-m", *QUICK, "seed=1,2")
    assert code == 2, text
    assert "1 of this sweep's runs failed" in text
    assert "result.json" in text.split("runs failed")[1]
    assert len(runs(place, "debug")) == 2


def test_several_devices_in_one_process_are_refused(place: Path) -> None:
    code, text = call(place, "train.py", "-m", *QUICK, "seed=1,2", "trainer.devices=2", "recipe.batch_size=2")
    assert code == 2
    assert "hydra/launcher=submitit_slurm" in text
    assert not list(place.glob("multirun/debug/*/result.json"))


def test_a_run_that_is_being_done_is_left_out(place: Path) -> None:
    options = (*TINY, "logger=none", "data.epochs=1000")
    first = Program(place, "train.py", *options)
    wait_until(lambda: list(place.glob("multirun/runs/*/checkpoints/last.ckpt")))
    (folder,) = runs(place).values()
    code, text = call(place, "train.py", *options)
    assert code == 2, text
    assert f"process {first.process.pid} on" in text
    assert "Wait for it" in text
    code, text = call(place, "train.py", "-m", *options, "fold=0")
    assert code == 0, text
    assert "Left out" in text
    first.kill(signal.SIGKILL)
    first.wait()
    (claim,) = folder.glob(".claim-0*")
    assert json.loads(claim.read_text())["pid"] == first.process.pid
    second = Program(place, "train.py", *options)
    wait_until(lambda: "Continuing the interrupted run" in second.text())
    second.kill(signal.SIGKILL)
    assert "Taking over" in second.text()


def scores(home: Path) -> dict[str, Any]:
    """Everything of the results that must not depend on interruptions."""
    found = {}
    for name, folder in runs(home).items():
        content = json.loads((folder / "result.json").read_text())
        found[name] = {k: content[k] for k in ("identity", "scores", "episodes", "key", "selection")}
        assert not list(folder.glob(".claim*"))
        assert not (folder / "failed.json").exists()
    return found


def killed_and_restarted(drawn: Path, home: Path, kills: int, options: tuple[str, ...], seed: int = 0) -> None:
    """Compare a sweep that is killed at random moments with one that is not."""
    calm, rough = furnished(home / "calm", drawn), furnished(home / "rough", drawn)
    begun = time.monotonic()
    code, text = call(calm, "train.py", "-m", *SHORT, *options)
    assert code == 0, text
    whole, moments = time.monotonic() - begun, random.Random(seed)
    for _ in range(kills):
        running = Program(rough, "train.py", "-m", *SHORT, *options)
        if running.alive_after(moments.uniform(0.15, 0.6) * whole):
            running.kill(signal.SIGKILL)
            running.wait()
    code, text = call(rough, "train.py", "-m", *SHORT, *options)
    assert code == 0, text
    assert scores(rough) == scores(calm)


def test_killed_sweeps_end_as_others(drawn: Path, tmp_path: Path) -> None:
    killed_and_restarted(drawn, tmp_path, 1, ("finetune=freeze,svf", "fold=0"))
    assert len(runs(tmp_path / "rough")) == 2


@pytest.mark.slow
def test_twelve_cells_killed_three_times(drawn: Path, tmp_path: Path) -> None:
    killed_and_restarted(drawn, tmp_path, 3, ("finetune=freeze,svf,full", "fold=0,1,2,3", "data.small_classes=drop"))
    assert len(runs(tmp_path / "rough")) == 12


def test_two_sweeps_share_the_cells(place: Path) -> None:
    options = ("train.py", "-m", *QUICK, "fold=0,1,2,3", "data.small_classes=drop")
    sweeps = [Program(place, *options), Program(place, *options)]
    assert [s.wait() for s in sweeps] == [0, 0], sweeps[0].text() + sweeps[1].text()
    assert len(runs(place, "debug")) == 4
    done = sum(s.text().count("- Result: ") for s in sweeps)
    assert done == 4, "each run prints its result once"
    code, text = call(place, "fss", "sweep", "status", *options[2:])
    assert code == 0, text
    assert "4 runs: 4 done" in text
