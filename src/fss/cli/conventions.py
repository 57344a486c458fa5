"""How the releases build their models, as configurations: what a checkpoint's tensors alone do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from fss.cli.edge import check, plain, prepare_hydra
from fss.errors import FssError

CONF = Path(__file__).resolve().parents[3] / "conf"
_BINS = {"pascal": "[60,30,15,8]", "shapes": "[60,30,15,8]", "coco": "[1.0,0.5,0.25,0.125]"}
_DECIDING = (("backbone", "dilation"), ("method", "bins"), ("method", "shot_aggregation"))
"""Options that change outputs and leave no trace in names and shapes."""


@dataclass(frozen=True)
class Released:
    """What a release's file is of.

    Attributes:
        source: the release: ``svf``, ``pfenet`` or ``bam``.
        method: baseline, pfenet, bam or base_learner.
        backbone: resnet50, resnet101, resnet152 or vgg16.
        data: pascal or coco.
        shot: supports it was trained with.
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
        if self.method != "base_learner":  # that one brings its own: everything trains
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
        released: what the file is of.

    Returns:
        Resolved, plain values, without pre-trained weights.

    Raises:
        FssError: if no release has such a model.
    """
    return composed([*released.overrides(), "backbone.weights=none"])


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose a configuration outside of Hydra's own programs.

    Args:
        overrides: options as after ``python train.py``.

    Returns:
        Resolved, plain values.

    Raises:
        FssError: if the folder conf/ is not beside the package, or a value is wrong.
    """
    if not (CONF / "config.yaml").is_file():
        raise FssError(f"{CONF} holds no config.yaml: run fss from a clone of the repository (pip install -e .)")
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="fss"):
        config = plain(compose("config", overrides=list(overrides)))
    check(config)
    return config


def differences(config: dict[str, Any], released: dict[str, Any]) -> list[str]:
    """List the options by which a model computes something else than a release with the same tensors.

    Args:
        config: of the model.
        released: of the release.

    Returns:
        Lines such as ``backbone.dilation=torchvision, the release has uniform``.
    """
    found = []
    for group, key in _DECIDING:
        own, theirs = config[group].get(key), released[group].get(key)
        if own != theirs and not (key == "shot_aggregation" and config["shot"] == 1):
            found.append(f"{group}.{key}={own}, the release has {theirs}")
    return found
