"""Recordings as trainings leave them, with numbers that a test can compute again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.reports.fabricate_runs import write_run

FREEZE = {"name": "freeze", "norm_mode": "eval"}
SVF = {"name": "svf", "stages": [2, 3, 4], "factors": ["S"], "rank_rounding": 1}
BLOCKS = {50: (3, 4, 6, 3), 18: (2, 2, 2, 2)}


def part(*kernels: int, stages: tuple[int, ...] = (2, 3, 4)) -> dict[str, Any]:
    return {"name": "part", "stages": list(stages), "kernel_sizes": list(kernels)}


def full(*stages: int) -> dict[str, Any]:
    return {"name": "full", "stages": list(stages), "train_norm": False}


def record(folder: Path, tuned: dict[str, Any], finished: bool = True, **key: Any) -> Path:
    """Write what every recording has: who it is; the result too, if the run is finished."""
    known = {
        "data": "pascal", "method": "baseline", "backbone": "resnet50", "finetune": tuned["name"], "recipe": "paper",
        "fold": 0, "shot": 1, "seed": 321, "experiment": "figures", **key,
    }  # fmt: skip
    if finished:
        changes = {f"key__{name}": value for name, value in known.items()}
        write_run(folder, **changes, config={"finetune": tuned, "data": {"epochs": 200}})
    (folder / "recording").mkdir(parents=True, exist_ok=True)
    about = {"key": known, "finetune": tuned, "epochs": 200}
    (folder / "recording" / "about.json").write_text(json.dumps(about))
    return folder


def curves(folder: Path, epochs: int = 5, first: float = 10.0, holes: bool = False) -> None:
    """Training: ``first`` and one more each epoch; novel: half of that; with holes, in every second epoch alone."""
    lines = ["epoch,train_miou,novel_miou"]
    for epoch in range(1, epochs + 1):
        train = first + epoch
        novel = "" if holes and epoch % 2 else f"{train / 2:.6f}"
        lines.append(f"{epoch},{train:.6f},{novel}")
    (folder / "recording" / "curves.csv").write_text("\n".join(lines) + "\n")


def names(depth: int = 50) -> list[tuple[str, int, int]]:
    """Name, kernel and rank (of ImageNet's widths) of every convolution of stages 2 to 4, in module order."""
    found = []
    for stage, count in zip((2, 3, 4), BLOCKS[depth][1:], strict=True):
        rank = 64 * 2 ** (stage - 1)
        kernels = (1, 3, 1) if depth == 50 else (3, 3)
        for block in range(count):
            found += [(f"layer{stage}.{block}.conv{i + 1}", k, rank) for i, k in enumerate(kernels)]
            if block == 0:
                found.append((f"layer{stage}.{block}.downsample.0", 1, rank * (2 if depth == 50 else 1) // 1))
    return found


def spectrum(number: int, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values of convolution ``number`` before and after: the change dies away with the index and grows with depth."""
    index = np.arange(rank)
    before = 4.0 * np.exp(-index / (0.25 * rank)) + 0.05
    dice = np.random.default_rng(number)
    change = 0.02 * (number + 1) * np.exp(-index / 15) * dice.normal(size=rank)
    return before.astype(np.float32), (before + change).astype(np.float32)


def spectra(folder: Path, depth: int = 50, epochs: tuple[int, ...] = (0, 10, 200), shrink: int = 1) -> None:
    """Write the spectra of a ResNet; ``shrink`` divides the ranks."""
    arrays: dict[str, Any] = {"epochs": np.array(epochs)}
    layers = names(depth)
    for number, (name, _, rank) in enumerate(layers):
        before, after = spectrum(number, rank // shrink)
        arrays[name] = np.stack([before, *([(before + after) / 2] * (len(epochs) - 2)), after])
    arrays |= {"names": np.array([n for n, _, _ in layers]), "kernels": np.array([k for _, k, _ in layers])}
    np.savez_compressed(folder / "recording" / "spectra.npz", **arrays)
