"""Training on real COCO photographs, where they lie beside the checkout."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COCO128 = Path(os.environ.get("FSS_SHARED", ROOT.parent / "shared")) / "data" / "coco128"

pytestmark = pytest.mark.skipif(not COCO128.is_dir(), reason=f"the photographs are not at {COCO128}")


def train(folder: Path, *overrides: str) -> Path:
    """Run train.py in a folder; return the run's own folder."""
    command = [sys.executable, str(ROOT / "train.py"), "data=coco", f"data.root={COCO128}", "data.small_classes=drop"]
    env = os.environ | {"FSS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    common = ["fold=1", "logger=csv", "selection=last", "previews=2", "trainer=cpu", "workers=0"]
    done = subprocess.run(
        [*command, *common, *overrides], cwd=folder, env=env, capture_output=True, text=True, timeout=560, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return next((folder / "multirun" / "runs").iterdir())


def test_small_settings_learn(tmp_path: Path) -> None:
    run = train(
        tmp_path,
        "backbone=resnet18",
        "backbone.width=16",
        "backbone.weights=none",
        "method.width=32",
        "method.dropout=0.1",
        "finetune=svf",
        "data.size=97",
        "data.epochs=12",
        "data.test_episodes=8",
        "recipe.batch_size=4",
        "recipe.optimizer.lr=0.05",
    )
    with (run / "csv" / "metrics.csv").open() as file:
        losses = [float(row["train/loss_main"]) for row in csv.DictReader(file) if row.get("train/loss_main")]
    third = len(losses) // 3
    assert third >= 2
    assert sum(losses[-third:]) < 0.95 * sum(losses[:third])
    result = json.loads((run / "result.json").read_text())
    assert result["episodes"]["count"] == 8
    assert result["key"]["data"] == "coco"


@pytest.mark.slow
def test_real_resnet50_at_641(tmp_path: Path) -> None:
    run = train(
        tmp_path,
        "backbone=resnet50",
        "backbone.weights=none",
        "finetune=svf",
        "data.epochs=1",
        "data.test_episodes=1",
        "recipe.batch_size=1",
        "trainer.limit_train_batches=2",
    )
    result = json.loads((run / "result.json").read_text())
    assert result["parameters"]["backbone_trainable"] == 12544
    assert result["config"]["data"]["size"] == 641
