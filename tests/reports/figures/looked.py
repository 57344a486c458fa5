"""Recordings of components and of the gallery, and a network whose components are known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.reports.figures.recordings import SVF, record

LAYERS = {"layer3.5.conv2": 3, "layer3.5.conv3": 1}
SIDE, RANK = 24, 8


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (M, SIDE, SIDE, 3) and masks: a square object, and a margin below."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    for number in range(count):
        masks[number, 4 : 12 + number, 4:12] = 1
    masks[:, 20:] = 255
    return rng.integers(0, 255, (count, SIDE, SIDE, 3)).astype(np.uint8), masks


def write_components(folder: Path, maps: int = 5, layers: dict[str, int] | None = None, **changes: Any) -> Path:
    """A finished SVF run; in every layer component 2 fell most and component 6 grew most."""
    run = record(folder, SVF)
    chosen = LAYERS if layers is None else layers
    rng = np.random.default_rng(1)
    before = np.linspace(4, 1, RANK)
    change = np.array([0.1, -0.2, -0.9, 0.05, 0.0, 0.3, 0.7, -0.1])
    image, mask = images(maps)
    arrays: dict[str, Any] = {
        "layers": np.array(list(chosen)),
        "kernels": np.array(list(chosen.values())),
        "shown": np.array(list(chosen)),
        "episode": np.arange(10),
        "class_name": np.array([f"class_{i % 2}" for i in range(10)]),
        "image": image,
        "mask": mask,
        "image_episode": np.arange(maps) * 2,
        "image_class": np.array([f"class_{i % 2}" for i in range(maps)]),
    }
    for name in chosen:
        arrays[f"before:{name}"] = before
        arrays[f"after:{name}"] = before + change
        arrays[f"energy:{name}"] = np.tile(change / 10, (10, 1))  # growing ones look at the object
        arrays[f"index:{name}"] = np.array([1, 2, 5, 6])
        arrays[f"map:{name}"] = rng.random((maps, 4, 6, 6)).astype(np.float16)
    (run / "recording").mkdir(exist_ok=True)
    np.savez_compressed(run / "recording" / "components.npz", **(arrays | changes))
    return run


def write_gallery(folder: Path, classes: int = 3, each: int = 2, **changes: Any) -> Path:
    """``each`` worst episodes of every class, IoU 0.01 * class + 0.1 * turn, and best ones with one minus that."""
    run = record(folder, SVF)
    rows = [(end, c, t) for end in ("worst", "best") for c in range(classes) for t in range(each)]
    image, mask = images(len(rows))
    low = np.array([0.01 * c + 0.1 * t for _, c, t in rows])
    arrays: dict[str, Any] = {
        "end": np.array([end for end, *_ in rows]),
        "index": np.arange(len(rows)),
        "class_name": np.array([f"class_{c}" for _, c, _ in rows]),
        "iou": np.where([end == "worst" for end, *_ in rows], low, 1 - low),
        "query": image,
        "support": image[::-1],
        "support_mask": mask,
        "truth": mask,
        "prediction": np.roll(mask == 1, 3, axis=2).astype(np.uint8),
    }
    (run / "recording").mkdir(exist_ok=True)
    np.savez_compressed(run / "recording" / "gallery.npz", **(arrays | changes))
    return run
