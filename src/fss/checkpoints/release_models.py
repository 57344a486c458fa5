"""Configurations of the models of the releases, which the tensors of a checkpoint do not determine."""

from __future__ import annotations

from typing import Any

from fss.checkpoints.known_releases import release_of
from fss.config.backbone_facts import with_added
from fss.config.compose import composed
from fss.data.sources.folds import COCO_CLASSES, FOLDS, PASCAL_CLASSES
from fss.errors import FssError
from fss.methods.base_learner import BaseLearner
from fss.methods.releases import Released

CLASSES = {
    name: len(ids) * (FOLDS - 1) // FOLDS + 1 for name, ids in (("pascal", PASCAL_CLASSES), ("coco", COCO_CLASSES))
}
"""Number of classes of a base learner, background included."""
_TOLD = {"name", "_target_", "weights", "weights_content", "sizes", "depth", "stem", "width"}
"""Options of a backbone that names and shapes tell, or that do not change what it computes."""
_FINETUNE = ("freeze", "svf")


def overrides(released: Released) -> list[str]:
    """Return the options of ``train.py`` that build a released model.

    Args:
        released: the released model.

    Raises:
        FssError: if no release has such a model.
    """
    release = release_of(released.source, released.method)
    if released.finetune not in _FINETUNE:
        raise FssError(
            f"--finetune {released.finetune} is in no release: choose freeze, or svf for the factors U, S and V"
        )
    if released.finetune == "svf" and not release.decomposed:
        raise FssError(
            f"--source {released.source} --method {released.method} has no decomposed layers: leave --finetune out, or "
            "give --source svf with another method"
        )
    if released.backbone not in release.backbones:
        raise FssError(
            f"--backbone {released.backbone} is not in the release {released.source} of {released.method}: choose "
            f"one of {', '.join(release.backbones)}"
        )
    if released.data not in CLASSES:
        raise FssError(f"--data {released.data} is not known: choose one of {', '.join(CLASSES)}")
    chosen = [f"{k}={getattr(released, k)}" for k in ("data", "backbone", "method", "fold", "shot")]
    if released.method != BaseLearner.name:  # it has its own strategy: everything trains
        chosen.append(f"finetune={released.finetune}")
    chosen += release.options(released)
    if released.finetune == "svf":
        chosen.append("finetune.rank_rounding=4")
    return chosen


def released_config(released: Released) -> dict[str, Any]:
    """Compose the configuration of a released model.

    Args:
        released: the released model.

    Returns:
        The resolved configuration as plain values, without pretrained weights.

    Raises:
        FssError: if no release has such a model.
    """
    config = composed([*overrides(released), "backbone.weights=none"])
    if "base_learner" in config["method"]:
        config["method"]["base_learner"]["built"] = {
            "classes": CLASSES[released.data],
            "method": {"_target_": "fss.methods.base_learner.BaseLearner"},
            "backbone": config["backbone"],
        }
    return config


def differences(config: dict[str, Any], expected: dict[str, Any], released: Released) -> list[str]:
    """List the options that make a model compute something else than a release with the same tensors.

    Args:
        config: configuration of the model.
        expected: configuration of the release.
        released: the released model.

    Returns:
        Lines such as ``backbone.dilation=torchvision, the release has uniform``.
    """
    config, expected = (c | {"backbone": with_added(c["backbone"])} for c in (config, expected))
    keys = dict.fromkeys([*expected["backbone"], *config["backbone"]])
    names = [f"backbone.{key}" for key in keys if key not in _TOLD]
    names += release_of(released.source, released.method).deciding(released)
    found = []
    for name in names:
        group, _, key = name.partition(".")
        own, theirs = config[group].get(key), expected[group].get(key)
        if own != theirs:
            found.append(f"{name}={own}, the release has {theirs}")
    return found
