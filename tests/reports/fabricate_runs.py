"""Result files and previews as a finished run leaves them."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

CONTENT: dict[str, Any] = {
    "schema_version": 1,
    "status": "finished",
    "identity": "",
    "key": {
        "data": "shapes",
        "method": "baseline",
        "backbone": "resnet18",
        "finetune": "svf",
        "fold": 0,
        "shot": 1,
        "seed": 0,
        "recipe": "paper",
        "experiment": None,
    },
    "scores": {
        "miou": 40.0,
        "miou_interval": [38.5, 41.5],
        "fb_iou": 65,
        "fb_iou_interval": [64.0, 66.0],
        "per_class": {"ring_stripes": 40.0, "star_dots": None},
    },
    "episodes": {"count": 400, "hash": "abc", "sampler": "release"},
    "selection": {"rule": "novel", "note": "on the test classes"},
    "parameters": {
        "backbone_trainable": 1200,
        "backbone_total": 2000000,
        "head_trainable": 5000,
        "per_layer": {"layer2.0.conv1.S": 64},
    },
    "cost": {"train_seconds": 61.4, "test_seconds": 12, "peak_memory_mb": 812.3, "memory_kind": "saved_for_backward"},
    "config": {"fold": 0},
    "versions": {"torch": "2.11"},
    "commit": None,
    "files": {"previews": "previews.npz", "checkpoint": "best.ckpt"},
}


def content(**changes: Any) -> dict[str, Any]:
    """Return a result with values replaced; ``key__seed=1`` sets ``content["key"]["seed"]``."""
    made = copy.deepcopy(CONTENT)
    for name, value in changes.items():
        *path, last = name.split("__")
        place = made
        for part in path:
            place = place[part]
        place[last] = value
    if not made["identity"]:
        made["identity"] = json.dumps([made["key"], made["config"]], sort_keys=True)
    return made


def write_run(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    path = folder / "result.json"
    path.write_text(json.dumps(content(**changes)))
    return path


def write_previews(folder: Path, count: int = 4, seed: int = 0, **arrays: np.ndarray) -> Path:
    """Write a run's previews; ``seed`` decides the prediction only."""
    folder.mkdir(parents=True, exist_ok=True)
    fixed, own = np.random.default_rng(99), np.random.default_rng(seed)
    truth = np.zeros((count, 24, 32), np.uint8)
    truth[:, 6:18, 8:24] = 1
    truth[:, 18] = 255
    made = {
        "index": np.arange(count),
        "query": fixed.integers(0, 255, (count, 24, 32, 3)).astype(np.uint8),
        "support": fixed.integers(0, 255, (count, 24, 32, 3)).astype(np.uint8),
        "support_mask": truth,
        "truth": truth,
        "prediction": own.integers(0, 2, truth.shape).astype(np.uint8),
        "iou": own.random(count),
        "class_name": np.array([f"class_{i % 2}" for i in range(count)]),
    }
    np.savez_compressed(folder / "previews.npz", **(made | arrays))
    return folder
