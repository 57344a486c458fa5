"""The files of a finished run as W&B's images, tables and artifacts."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from numpy.typing import NDArray

from fss.results import Result

CLASS_COLUMNS: list[str | int] = ["class", "IoU", "low", "high", "episodes"]
"""Of the table per class: IoU in per cent, its 95 % bootstrap interval over the class's episodes, their number."""

_SAMPLES = 1000
_IGNORED = {255: "ignored"}


def images(path: Path) -> dict[str, list[wandb.Image]]:
    """Show the kept test episodes, with masks that W&B can switch on and off and colour by class.

    Args:
        path: ``previews.npz`` of the run.

    Returns:
        ``test/episodes``: queries with truth and prediction; ``test/supports``: the first support of each.
    """
    queries, supports = [], []
    with np.load(path) as stored:
        kept = {name: stored[name] for name in stored.files}
    for i, name in enumerate(kept["class_name"].tolist()):
        names = {0: "background", 1: str(name), **_IGNORED}
        where = f"{name}, episode {int(kept['index'][i])}"
        masks = {key: _mask(kept[key][i], names) for key in ("truth", "prediction")}
        queries.append(
            wandb.Image(kept["query"][i], masks=masks, caption=f"{where}: IoU {100 * float(kept['iou'][i]):.1f}")
        )
        support = {"support": _mask(kept["support_mask"][i], names)}
        supports.append(wandb.Image(kept["support"][i], masks=support, caption=f"{where}, first support"))
    return {"test/episodes": queries, "test/supports": supports}


def class_table(result: Result) -> wandb.Table:
    """Make the table of a run's classes.

    Args:
        result: of the run; ``episodes.csv`` beside it tells intervals and numbers, where it is there.

    Returns:
        One row per class, see :data:`CLASS_COLUMNS`.
    """
    counts = _foreground(result.folder / "episodes.csv")
    rows: list[list[Any]] = []
    for name, iou in result.scores.per_class.items():
        own = counts.get(name)
        low, high = (None, None) if own is None else _interval(own)
        rows.append([name, iou, low, high, None if own is None else len(own)])
    return wandb.Table(columns=CLASS_COLUMNS, data=rows)


def tuned_values(result: Result, name: str, base: dict[str, str] | None) -> wandb.Artifact:
    """Make the artifact of the tuned values alone: for SVF the singular values.

    Args:
        result: of the run; ``tuned.pt`` lies beside it.
        name: of the run.
        base: identity and hash of the base learner that the run builds on, if any.

    Returns:
        The artifact.
    """
    key = result.key
    facts = {group: getattr(key, group) for group in ("method", "backbone", "finetune", "data", "fold", "shot", "seed")}
    facts |= {
        "identity": result.identity,
        "miou": result.scores.miou,
        "trained_values": result.parameters.backbone_trainable,
        "backbone_values": result.parameters.backbone_total,
        "test_episodes": result.episodes.hash,
        "base_learner": base,
    }
    artifact = wandb.Artifact(
        legal(f"tuned-{name}"), "tuned-values", "Put back with fss.checkpoints.tuned.apply_tuned.", facts
    )
    artifact.add_file(str(result.folder / "tuned.pt"), policy="immutable", skip_cache=True)
    return artifact


def base_identity(identity: str, checkpoint: Path) -> dict[str, str]:
    """Return what tells a base learner from all others, wherever its file lies.

    Args:
        identity: of its run.
        checkpoint: its file.
    """
    with open(checkpoint, "rb") as file:
        return {"identity": identity, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def base_learner(base: dict[str, str], facts: dict[str, Any]) -> wandb.Artifact:
    """Make the artifact that stands for a base learner: its run puts it out, runs that build on it take it in.

    W&B knows an artifact by its content. The checkpoint itself, hundreds of MB, stays where it is.

    Args:
        base: see :func:`base_identity`.
        facts: more to show.

    Returns:
        The artifact, equal in all these runs.
    """
    artifact = wandb.Artifact(legal(f"base-learner-{base['identity'][:12]}"), "base-learner", metadata=facts)
    with artifact.new_file("base_learner.json") as file:
        file.write(json.dumps(base, indent=2, sort_keys=True) + "\n")
    return artifact


def legal(name: str) -> str:
    """Return a name that W&B accepts for an artifact.

    Args:
        name: any text.
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:128]


def _mask(values: NDArray[np.uint8], names: dict[int, str]) -> dict[str, Any]:
    return {"mask_data": values, "class_labels": names}


def _foreground(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return foreground intersection and union of every episode by class, (N, 2); nothing without the file."""
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["class"]].append((int(row["foreground_intersection"]), int(row["foreground_union"])))
    return {name: np.array(pairs, dtype=np.float64) for name, pairs in found.items()}


def _interval(pairs: NDArray[np.float64]) -> tuple[float, float]:
    """Return the central 95 % of bootstrap IoUs in per cent, of pairs (N, 2); seeded, so it can be computed again."""
    draws = np.random.default_rng(0).integers(len(pairs), size=(_SAMPLES, len(pairs)))
    sums = pairs[draws].sum(axis=1)
    low, high = np.quantile(100 * sums[:, 0] / np.maximum(sums[:, 1], 1), [0.025, 0.975]).tolist()
    return low, high
