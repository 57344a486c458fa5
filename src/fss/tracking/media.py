"""Files of a finished run as W&B images, tables and artifacts."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from numpy.typing import NDArray

from fss.results import Result

CLASS_COLUMNS: list[str | int] = ["class", "IoU", "low", "high", "episodes"]
"""Columns of the class table: IoU in per cent with its 95 % bootstrap interval over the images, number of episodes."""

_IGNORED = {255: "ignored"}


def images(path: Path) -> dict[str, list[wandb.Image]]:
    """Build images of the preview episodes, with masks that W&B can toggle and colour by class.

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
        result: result of the run.

    Returns:
        One row per class, see :data:`CLASS_COLUMNS`.
    """
    intervals, episodes = result.scores.class_intervals or {}, result.scores.class_episodes or {}
    rows: list[list[Any]] = []
    for name, iou in result.scores.per_class.items():
        low, high = intervals.get(name) or (None, None)
        rows.append([name, iou, low, high, episodes.get(name)])
    return wandb.Table(columns=CLASS_COLUMNS, data=rows)


def tuned_values(result: Result, name: str, base: dict[str, str] | None) -> wandb.Artifact:
    """Make the artifact of the tuned values alone, which for SVF are the singular values.

    Args:
        result: result of the run; ``tuned.pt`` is beside it.
        name: run name.
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
    """Return what identifies a base learner, independent of where its file is.

    Args:
        identity: identity of its run.
        checkpoint: its checkpoint.
    """
    with open(checkpoint, "rb") as file:
        return {"identity": identity, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def base_learner(base: dict[str, str], facts: dict[str, Any]) -> wandb.Artifact:
    """Make the artifact of a base learner: an output of its own run, an input of runs that build on it.

    W&B identifies artifacts by content. The checkpoint itself, hundreds of MB, is not uploaded.

    Args:
        base: see :func:`base_identity`.
        facts: further metadata.

    Returns:
        The artifact, identical in all these runs.
    """
    artifact = wandb.Artifact(legal(f"base-learner-{base['identity'][:12]}"), "base-learner", metadata=facts)
    with artifact.new_file("base_learner.json") as file:
        file.write(json.dumps(base, indent=2, sort_keys=True) + "\n")
    return artifact


def legal(name: str) -> str:
    """Turn a text into a name that W&B accepts for an artifact.

    Args:
        name: any text.
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:128]


def _mask(values: NDArray[np.uint8], names: dict[int, str]) -> dict[str, Any]:
    return {"mask_data": values, "class_labels": names}
