"""Configurations of the models of the releases, which the tensors of a checkpoint do not determine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fss.config.compose import composed
from fss.data.sources.folds import COCO_CLASSES, FOLDS, PASCAL_CLASSES
from fss.errors import FssError

_BINS = {"pascal": "[60,30,15,8]", "shapes": "[60,30,15,8]", "coco": "[1.0,0.5,0.25,0.125]"}
CLASSES = {
    name: len(ids) * (FOLDS - 1) // FOLDS + 1 for name, ids in (("pascal", PASCAL_CLASSES), ("coco", COCO_CLASSES))
}
"""Number of classes of a base learner, background included."""
_DECIDING = (("backbone", "dilation"), ("method", "bins"), ("method", "shot_aggregation"))
"""Options that change outputs but not names or shapes."""


@dataclass(frozen=True)
class Released:
    """The model in a release's file.

    Attributes:
        source: the release: ``svf``, ``pfenet`` or ``bam``.
        method: baseline, pfenet, bam or base_learner.
        backbone: resnet50, resnet101, resnet152 or vgg16.
        data: pascal or coco.
        shot: number of supports it was trained with.
        finetune: ``freeze`` or ``svf``.
        fold: 0 to 3.
    """

    source: str
    method: str
    backbone: str
    data: str
    shot: int
    finetune: str
    fold: int

    def overrides(self) -> list[str]:
        """Return the options of ``train.py`` that build the released model.

        Raises:
            FssError: if no release has such a model.
        """
        if self.finetune not in ("freeze", "svf"):
            raise FssError(
                f"--finetune {self.finetune} is in no release: choose freeze, or svf for the factors U, S and V"
            )
        if self.finetune == "svf" and (self.source != "svf" or self.method == "base_learner"):
            raise FssError(
                f"--source {self.source} --method {self.method} has no decomposed layers: leave --finetune out, or "
                "give --source svf with another method"
            )
        groups = ("data", "backbone", "method", "fold", "shot")
        chosen = [f"{k}={getattr(self, k)}" for k in groups]
        if self.method != "base_learner":  # it has its own strategy: everything trains
            chosen.append(f"finetune={self.finetune}")
        if self.backbone.startswith("resnet"):
            uniform = self.source != "svf" or self.method in ("bam", "base_learner")
            chosen += ["backbone.stem=deep", f"method.wants.dilation={'uniform' if uniform else 'torchvision'}"]
        if self.method == "baseline":
            chosen.append("method.shot_aggregation=sum")
        if self.method == "pfenet":
            chosen.append(f"method.bins={_BINS[self.data] if self.source == 'pfenet' else _BINS['pascal']}")
        if self.finetune == "svf":
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
    config = composed([*released.overrides(), "backbone.weights=none"])
    if "base_learner" in config["method"]:
        config["method"]["base_learner"]["built"] = {
            "classes": CLASSES[released.data],
            "method": {"_target_": "fss.methods.base_learner.BaseLearner"},
            "backbone": config["backbone"],
        }
    return config


def differences(config: dict[str, Any], released: dict[str, Any]) -> list[str]:
    """List the options that make a model compute something else than a release with the same tensors.

    Args:
        config: configuration of the model.
        released: configuration of the release.

    Returns:
        Lines such as ``backbone.dilation=torchvision, the release has uniform``.
    """
    found = []
    for group, key in _DECIDING:
        own, theirs = config[group].get(key), released[group].get(key)
        if own != theirs and not (key == "shot_aggregation" and config["shot"] == 1):
            found.append(f"{group}.{key}={own}, the release has {theirs}")
    return found
