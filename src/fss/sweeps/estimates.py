"""Estimates of run times, from the step times of finished runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fss.config.identity import determining

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """Measured times of a finished run.

    Attributes:
        kind: what the cost of a step depends on, see :func:`kind_of`.
        epoch: what the length of an epoch depends on, see :func:`epoch_of`.
        step_s: seconds per training step.
        steps: training steps of a whole epoch.
        test_s: seconds per test episode.
    """

    kind: str
    epoch: str
    step_s: float
    steps: int
    test_s: float


def measured(root: Path) -> list[Measured]:
    """Read the times of all finished runs.

    Args:
        root: folder of runs, searched recursively.

    Returns:
        One entry per run that trained.
    """
    found = []
    for path in root.rglob("result.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            cost, config = content["cost"], content["config"]
            times = float(cost["step_ms"]) / 1000, int(cost["steps_per_epoch"]), float(cost["test_episode_ms"]) / 1000
            found.append(Measured(kind_of(config), epoch_of(config), *times))
        except (OSError, ValueError, KeyError, TypeError):  # damaged, only tested, or written before times were stored
            continue
    return found


def seconds(config: Config, known: Iterable[Measured]) -> float | None:
    """Estimate the time of a run.

    Args:
        config: resolved configuration of the run.
        known: measured runs.

    Returns:
        Seconds for training, validation and test; None if no run of its kind was measured. The length of an epoch is
        that of the same fold if measured, else that of another fold.
    """
    alike = [m for m in known if m.kind == kind_of(config)]
    if not alike:
        return None
    same_fold = [m.steps for m in alike if m.epoch == epoch_of(config)]
    epochs = config["data"]["epochs"]
    every = config["trainer"].get("check_val_every_n_epoch") or 1
    validations = 0 if config["selection"] == "last" else epochs // every
    whole = median(same_fold or [m.steps for m in alike])
    limit = config["trainer"].get("limit_train_batches")
    steps = min(whole, limit) if isinstance(limit, int) else whole * (1.0 if limit is None else limit)
    episodes = config["data"].get("test_episodes") or 0
    return float(
        epochs * steps * median(m.step_s for m in alike)
        + (validations + 1) * episodes * median(m.test_s for m in alike)
    )


def kind_of(config: Config) -> str:
    """Return what the time of a step depends on, as text: data, model, strategy, shot, batch size, hardware.

    Args:
        config: resolved configuration.
    """
    kept = determining(dict(config))
    data, recipe = kept["data"], kept["recipe"]
    node = {
        "data": [data["name"], data.get("size")],
        "method": kept["method"]["name"],
        "backbone": kept["backbone"],
        "finetune": kept["finetune"],
        "shot": kept["shot"],
        "batch": recipe["batch_size"],
        "precision": kept["trainer"].get("precision"),
        "hardware": [config["trainer"].get(k) for k in ("accelerator", "devices", "num_nodes")],
    }
    return json.dumps(node, sort_keys=True, default=str)


def epoch_of(config: Config) -> str:
    """Return what the length of an epoch depends on, as text: data, novel images, fold, batch size.

    Args:
        config: resolved configuration.
    """
    data = config["data"]
    node = [data["name"], data.get("novel_images"), config["fold"], config["recipe"]["batch_size"]]
    return json.dumps(node, default=str)
