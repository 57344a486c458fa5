"""Interrupted runs continue bit for bit: weights, optimiser, schedule, scores and logs."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.programs import TINY, Program, call

EPOCHS, STEPS = 4, 7
OPTIONS = (
    *TINY, f"data.epochs={EPOCHS}", "data.test_episodes=12", "data.val_episodes=8", "recipe.batch_size=2", "logger=csv",
    "finetune=svf", "trainer.log_every_n_steps=1", f"trainer.limit_train_batches={STEPS}", "recipe.optimizer.lr=0.2",
    "recipe.backbone_lr_factor=1.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(home: Path) -> dict[str, Any]:
    """The uninterrupted run."""
    code, text = call(home, "train.py", *OPTIONS, "group=whole")
    assert code == 0, text
    return outcome(home, "whole")


def outcome(home: Path, group: str) -> dict[str, Any]:
    """All that an interruption must not change."""
    (folder,) = (home / "multirun" / group).iterdir()
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    result = json.loads((folder / "result.json").read_text())
    with open(folder / "csv/metrics.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    assert not list(folder.rglob("*.tmp"))
    return {
        "weights": last["state_dict"],
        "optimiser": last["optimizer_states"][0]["state"],
        "schedule": last["lr_schedulers"],
        "best": best["state_dict"],
        "best step": best["global_step"],
        "scores": result["scores"],
        "episodes": result["episodes"],
        "log": rows,
    }


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{i}")
    else:
        assert a == b, where


def test_the_run_is_worth_comparing(whole: dict[str, Any]) -> None:
    log = whole["log"]
    assert sum("train/loss_total" in row for row in log) == EPOCHS * STEPS
    assert sum("val/miou" in row for row in log) == EPOCHS
    assert len({row["val/loss"] for row in log if "val/loss" in row}) == EPOCHS
    assert len({row["train/fb_iou"] for row in log if "train/fb_iou" in row}) == EPOCHS


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_at_random_moments(home: Path, whole: dict[str, Any], kills: int) -> None:
    """Every life trains for a random while after its start; runs that end are compared, until all kills are spent."""
    dice, hits, group = random.Random(kills), 0, 0
    while hits < kills:
        running = Program(home, "train.py", *OPTIONS, f"group=killed{kills}-{group}", "checkpoint_minutes=0.001")
        if lasts(running, dice.uniform(0, 1.5)):
            running.kill(signal.SIGKILL)
            running.process.join()
            hits += 1
        else:
            assert running.wait() == 0, running.text()
            assert_equal(outcome(home, f"killed{kills}-{group}"), whole)
            group += 1
    runs = home / "multirun" / f"killed{kills}-{group}"
    begun = any(runs.rglob("last.ckpt")) and not any(runs.rglob("result.json"))  # on a busy machine all may die before
    code, text = call(home, "train.py", *OPTIONS, f"group={runs.name}")
    assert code == 0, text
    assert ("Continuing the interrupted run" in text) == begun
    assert_equal(outcome(home, f"killed{kills}-{group}"), whole)


def lasts(running: Program, seconds: float) -> bool:
    """Tell whether a program is still there some seconds after its model was built."""
    while "Fine-tuning" not in running.text():
        if not running.alive_after(0.02):
            return False
    return running.alive_after(seconds)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_by_a_signal(home: Path, whole: dict[str, Any], signum: int, code: int) -> None:
    """No snapshot by the clock here: the checkpoint is that of the signal."""
    group = f"stopped{signum}"
    options = (*OPTIONS, f"group={group}", "checkpoint_minutes=0")
    running = Program(home, "train.py", *options)
    wait_for_steps(running, home / "multirun" / group, 1)
    running.kill(signum)
    assert running.wait() == code, running.text()
    assert "The same command continues from there." in running.text()
    (folder,) = (home / "multirun" / group).iterdir()
    assert not (folder / "result.json").exists()
    finished, text = call(home, "train.py", *options)
    assert finished == 0, text
    assert "Continuing the interrupted run" in text
    assert_equal(outcome(home, group), whole)


def test_slurm_is_asked_to_start_the_job_again(home: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    slurm = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_NTASKS": "1"}
    slurm |= {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    slurm |= {"SLURM_JOB_NAME": "night", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    running = Program(home, "train.py", *OPTIONS, "group=slurm", environment=slurm)
    wait_for_steps(running, home / "multirun/slurm", 1)
    running.kill(signal.SIGUSR1)
    assert running.wait() == 128 + signal.SIGUSR1, running.text()
    assert (tmp_path / "asked").read_text() == "requeue 70_3\n"
    code, text = call(home, "train.py", *OPTIONS, "group=slurm", environment=slurm)
    assert code == 0, text
    assert_equal(outcome(home, "slurm"), whole)


def test_wandb_run_goes_on(home: Path) -> None:
    """Offline: the second part has the id of the first."""
    options = (*OPTIONS, "group=wandb", "logger.wandb=offline")
    environment = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    running = Program(home, "train.py", *options, environment=environment)
    wait_for_steps(running, home / "multirun/wandb", 1)
    running.kill(signal.SIGTERM)
    assert running.wait() == 143, running.text()
    (folder,) = (home / "multirun/wandb").iterdir()
    first = (folder / "wandb_id").read_text()
    code, text = call(home, "train.py", *options, environment=environment)
    assert code == 0, text
    assert (folder / "wandb_id").read_text() == first
    runs = [p for p in (folder / "wandb").iterdir() if p.name.startswith("offline-run-")]
    assert len(runs) == 2
    assert all(p.name.endswith(f"-{first}") for p in runs)
    code, text = call(home, "train.py", *options, "overwrite=true", environment=environment)
    assert code == 0, text
    assert (folder / "wandb_id").read_text() != first, "another run there, too"


def test_resume_never_starts_again(home: Path) -> None:
    running = Program(home, "train.py", *OPTIONS, "group=never")
    wait_for_steps(running, home / "multirun/never", 1)
    running.kill(signal.SIGTERM)
    assert running.wait() == 143, running.text()
    code, text = call(home, "train.py", *OPTIONS, "group=never", "resume=never")
    assert code == 0, text
    assert "Continuing" not in text
    (folder,) = (home / "multirun/never").iterdir()
    with open(folder / "csv/metrics.csv", newline="") as file:
        assert sum(bool(row["train/loss_total"]) for row in csv.DictReader(file)) == EPOCHS * STEPS


def wait_for_steps(running: Program, group: Path, epochs: int) -> None:
    """Wait until the checkpoint of some whole epochs is there."""
    while True:
        found = list(group.glob("*/checkpoints/last.ckpt"))
        if found and torch.load(found[0], weights_only=True)["global_step"] >= epochs * STEPS:
            return
        assert running.alive_after(0.02), running.text()
