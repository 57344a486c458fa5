"""Official layouts -> ``fss data prepare`` -> train.py -> a result that says what it was trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.data.fabricate_archives import IDS, write_coco_archives, write_sbd_archive, write_voc_archive
from typer.testing import CliRunner

from fss.cli.main import app
from fss.data.sources.manifest import list_hash
from fss.results import load_result

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    "backbone=resnet18",
    "backbone.weights=none",
    "backbone.width=8",
    "method.width=8",
    "data.size=97",
    "debug=one_batch",
    "trainer.limit_train_batches=2",
    "recipe.batch_size=4",
    "trainer=cpu",
    "logger=none",
    "workers=0",
)


def call(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    environment = {**os.environ, **quiet, "FSS_CACHE": str(home / "cache")}
    return subprocess.run(
        [sys.executable, *command], cwd=home, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def prepare(home: Path, *arguments: str) -> Path:
    root = home / "root"
    places = ("--root", str(root), "--archives", str(home / "archives"), "--unverified")
    done = CliRunner().invoke(app, ["data", "prepare", *arguments, *places])
    assert done.exit_code == 0, done.output
    assert f"python train.py data={arguments[0]} data.root={root}" in done.output
    return root


def train(home: Path, *arguments: str) -> dict[str, Any]:
    done = call(home, str(ROOT / "train.py"), *OPTIONS, *arguments)
    assert done.returncode == 0, done.stderr
    (path,) = home.glob("multirun/*/*/result.json")
    assert load_result(path).episodes.count == 4
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_pascal(tmp_path: Path) -> None:
    write_voc_archive(tmp_path / "archives")
    write_sbd_archive(tmp_path / "archives")
    root = prepare(tmp_path, "pascal")
    result = train(tmp_path, "data=pascal", f"data.root={root}", "fold=1")
    assert result["data"] == {
        "name": "pascal",
        "train_images": len(IDS.expected_train),
        "train_list": list_hash(IDS.expected_train),
        "val_images": len(IDS.expected_val),
        "val_list": list_hash(IDS.expected_val),
        "manifest": "unverified",
        "lists": "other",
    }


def test_coco(tmp_path: Path) -> None:
    write_coco_archives(tmp_path / "archives")
    root = prepare(tmp_path, "coco", "--mask-rule", "first_polygon")
    options = ("data=coco", f"data.root={root}", "fold=2")
    refused = call(tmp_path, str(ROOT / "train.py"), *OPTIONS, *options)
    assert refused.returncode == 2
    assert "data.mask_rule=first_polygon" in refused.stderr
    assert "Traceback" not in refused.stderr
    result = train(tmp_path, *options, "data.mask_rule=first_polygon")
    facts = {k: result["data"][k] for k in ("year", "mask_rule", "manifest", "train_images", "val_images")}
    assert facts == {
        "year": 2014,
        "mask_rule": "first_polygon",
        "manifest": "unverified",
        "train_images": 80,
        "val_images": 80,
    }


@pytest.mark.parametrize("data", ["pascal", "coco"])
def test_a_missing_data_set_prints_the_command(tmp_path: Path, data: str) -> None:
    done = call(tmp_path, str(ROOT / "train.py"), f"data={data}", "data.root=gone", "backbone.weights=none")
    assert done.returncode == 2
    assert f"fss data prepare {data} --root gone" in done.stderr
    assert "--archives DIR (or --download)" in done.stderr
    assert "Traceback" not in done.stderr
