"""Processes that belong together: one is killed, and the others end by themselves, with words and a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.programs import TINY, Program

AGAIN = "The same command continues at the last checkpoint: python train.py"
BEGIN = """
import os, subprocess, sys, time
from fss.runs.processes import companions
companions.GRACE_S = companions.LOOK_S = 0.1
sys.argv = ["train.py", "fold=2"]
"""


def python(code: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + code], env={**os.environ, **(environment or {})}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_process_that_waits_for_a_dead_device_ends() -> None:
    ended = python(
        "device = subprocess.Popen(['sleep', '600'])\n"
        "companions._watch_devices([subprocess.Popen(['true']), device, subprocess.Popen(['sh', '-c', 'exit 7'])])\n"
        "print(device.pid, flush=True)\ntime.sleep(600)"
    )
    text, _ = ended.communicate(timeout=60)
    assert ended.returncode == 2
    assert "The process of device 3 has ended with code 7" in text
    assert f"{AGAIN} fold=2" in text
    assert not running(int(text.split()[0])), "no device is left behind"


def test_devices_that_end_well_end_nobody() -> None:
    ended = python("companions._watch_devices([subprocess.Popen(['true'])])\ntime.sleep(1)")
    assert ended.communicate(timeout=60)[0] == ""
    assert ended.returncode == 0


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_device_ends_with_the_process_that_started_it(rank: str) -> None:
    """A process of rank 0, as torchrun and a shell start it, outlives its parent."""
    child = BEGIN + (
        "with companions.together():\n    print(os.getpid(), flush=True)\n    time.sleep(4)\nprint('outlived')"
    )
    code = (
        "with companions.together():\n"
        f"    subprocess.Popen([sys.executable, '-c', {child!r}], env={{**os.environ, 'LOCAL_RANK': '{rank}'}})\n"
        "    time.sleep(600)"
    )
    parent = python(code)
    assert parent.stdout is not None
    number = int(parent.stdout.readline())
    assert running(number)
    parent.kill()
    text = parent.stdout.read()  # to the end of both
    parent.wait()
    assert ("outlived" in text) == (rank == "0")
    assert (f"Process {parent.pid}, which started this one, has ended" in text) == (rank == "1")
    assert (f"{AGAIN} fold=2" in text) == (rank == "1")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_device_ends_the_run(home: Path, rank: int) -> None:
    options = (
        *TINY, "logger=csv", "data.epochs=1000", "data.test_episodes=4", "data.val_episodes=4", "recipe.batch_size=2",
        "trainer.devices=2", f"group=killed{rank}", "checkpoint_minutes=0",
    )  # fmt: skip
    run = Program(home, "train.py", *options, environment={"FSS_TEST": f"killed{rank}"})
    deadline = time.monotonic() + 300
    while not list(home.glob(f"multirun/killed{rank}/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        assert run.alive_after(0.2), run.text()
    (other,) = of_run(f"killed{rank}")
    os.kill(other if rank else int(run.process.pid or 0), signal.SIGKILL)
    code = run.wait(150)
    deadline = time.monotonic() + 150
    while (left := of_run(f"killed{rank}")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"{left} outlived: {run.text()}"
    assert code == (2 if rank else -signal.SIGKILL), run.text()
    assert run.text().count("Error: ") == 1, run.text()
    assert "Traceback" not in run.text()
    assert AGAIN in run.text()
    assert "hydra.job.name" not in run.text().partition(AGAIN)[2]


def environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def running(pid: int) -> bool:
    """Tell whether a process runs; one that has ended keeps its number until its parent looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def of_run(name: str) -> list[int]:
    """List the processes that a run has started, by an entry of their environment."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if running(pid) and f"FSS_TEST={name}\0".encode() in environment_of(pid)]
