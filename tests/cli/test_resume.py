"""Interrupted runs continue bit for bit: weights, optimiser, schedule, scores and logs."""

from __future__ import annotations

import csv
import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.processes import Program, call

from fss.data.shapes import write_shapes

EPOCHS, STEPS = 4, 7
OPTIONS = (
    "data=shapes", "backbone=resnet18", "backbone.width=8", "backbone.weights=none", "method.width=8", "data.size=65",
    f"data.epochs={EPOCHS}", "data.test_episodes=12", "data.val_episodes=8", "recipe.batch_size=2", "logger=csv",
    "finetune=svf", "workers=0", "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1",
    f"trainer.limit_train_batches={STEPS}", "recipe.optimizer.lr=0.2", "recipe.backbone_lr_factor=1.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_shapes(folder / "data/shapes", 0, train=60, val=40, pretrain_per_class=1)
    return folder


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
    code, text = call(home, "train.py", *OPTIONS, f"group=killed{kills}-{group}")
    assert code == 0, text
    assert "Continuing the interrupted run" in text or not hits
    assert_equal(outcome(home, f"killed{kills}-{group}"), whole)


def lasts(running: Program, seconds: float) -> bool:
    """Tell whether a program is still there some seconds after its model was built."""
    while "Fine-tuning" not in running.text():
        if not running.alive_after(0.02):
            return False
    return running.alive_after(seconds)
