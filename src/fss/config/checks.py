"""Check a whole configuration before anything heavy is imported, read or written."""

from __future__ import annotations

from typing import Any

from fss.config.backbone_facts import check_backbone
from fss.config.recording import check_recording
from fss.config.value_ranges import check_values, whole
from fss.data.sources.folds import FOLDS
from fss.errors import FssError

SELECTIONS = ("novel", "base", "last")
LEAKS = ("refuse", "allow")


def check(config: dict[str, Any]) -> None:
    """Check plain values that no group validates, before anything heavy is imported.

    Args:
        config: resolved, plain values.

    Raises:
        FssError: on the first wrong value.
    """
    whole("data.folds", config["data"].get("folds", FOLDS), 1, None)
    whole("fold", config["fold"], 0, config["data"].get("folds", FOLDS) - 1)
    whole("shot", config["shot"], 1, None)
    whole("seed", config["seed"], 0, 2**32 - 1)
    whole("test_seed", config["test_seed"], 0, 2**32 - 1)
    whole("workers", config["workers"], 0, None)
    whole("previews", config["previews"], 0, None)
    whole("recipe.batch_size", config["recipe"]["batch_size"], 1, None)
    _shared(config["recipe"]["batch_size"], config["trainer"])
    if config["selection"] not in SELECTIONS:
        raise FssError(f"selection={config['selection']} is not known: choose one of {', '.join(SELECTIONS)}.")
    if config.get("leaks", LEAKS[0]) not in LEAKS:
        raise FssError(f"leaks={config['leaks']} is not known: choose one of {', '.join(LEAKS)}.")
    minutes = config.get("checkpoint_minutes", 0)  # checkpoints of before this option are tested too
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes >= 0:
        raise FssError(f"checkpoint_minutes={minutes} is not allowed: give minutes from 0 up; 0 means never.")
    if config["resume"] not in ("auto", "never"):
        raise FssError(f"resume={config['resume']} is not known: choose auto or never.")
    stages = config["finetune"].get("stages", [])
    if not isinstance(stages, list) or any(not isinstance(s, int) or not 0 <= s <= 4 for s in stages):
        raise FssError(f"finetune.stages={stages} is not allowed: give a list of stages 0 (stem) to 4, e.g. [2,3,4].")
    check_values(config)
    check_backbone(config)
    check_recording(config)


def _shared(batch: int, trainer: dict[str, Any]) -> None:
    """Check that a batch divides by the processes, where their number is given as a number."""
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if isinstance(devices, int) and isinstance(nodes, int) and devices > 0 and nodes > 0 and batch % (devices * nodes):
        raise FssError(
            f"recipe.batch_size={batch} cannot be shared by {devices * nodes} processes (trainer.devices={devices}, "
            f"trainer.num_nodes={nodes}): it is the size over all of them. Give a multiple of {devices * nodes}."
        )
