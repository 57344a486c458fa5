"""Where a number comes from: the run's key, the selection rule, versions and commit."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fss.config.backbone_facts import RELEASED_VIEW, VIEW
from fss.config.identity import identity
from fss.lit.callbacks.result import RunFacts
from fss.types import ImageBackbone

SELECTION_NOTES = {
    "novel": "the tested checkpoint is the best on these very test episodes (the field's convention): optimistic",
    "base": "the tested checkpoint is the best on held-out base-class episodes: no novel class was looked at",
    "last": "the weights after the last epoch were tested: nothing was selected",
}
SUITE = "suite"
"""The protocol that results need not name."""
_PACKAGES = ("fss", "torch", "torchvision", "pytorch-lightning", "albumentations", "opencv-python-headless", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that determine numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str | None:
    """Return the commit of the code, with ``+dirty`` if files differ.

    Returns:
        None outside a checkout, also where the package is installed below another project's repository.
    """
    folder = Path(__file__).resolve().parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        head = _git(folder, "rev-parse", "HEAD")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+dirty" if dirty else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def too_small(config: dict[str, Any], left_out: Mapping[str, Mapping[str, int]] | None) -> tuple[str, ...]:
    """Say which classes count in no mean, because they have too few images.

    Args:
        config: resolved configuration.
        left_out: ``val`` and ``test``, or one of them -> class name -> number of its images; None: all count.

    Returns:
        Notes for the result: of the test, and of the validation if it has other classes.
    """
    notes = []
    for split, what in (("test", "test"), ("val", "validation")):
        classes = (left_out or {}).get(split, {})
        if classes and not (split == "val" and config["selection"] != "base"):
            listed = ", ".join(f"{name} ({count})" for name, count in classes.items())
            notes.append(
                f"data.min_test_images={config['data']['min_test_images']}: left out of the mean IoU over classes of "
                f"the {what}, for too few images: {listed}"
            )
    return tuple(notes)


def of_backbone(config: dict[str, Any], backbone: ImageBackbone) -> tuple[str, ...]:
    """Say what is special about a run's backbone.

    Args:
        config: resolved configuration.
        backbone: of the model, with its weights.

    Returns:
        Notes for the result.
    """
    view = config["method"].get(VIEW)
    if view in (None, RELEASED_VIEW):
        return backbone.notes
    return (
        *backbone.notes,
        f"method.{VIEW}={view}: support images are masked; the releases of this head mask their maps before stage 4",
    )


def facts(
    config: dict[str, Any], note: str | None = None, trained_shot: int | None = None, notes: tuple[str, ...] = ()
) -> RunFacts:
    """Collect what is known of a run before it starts.

    Args:
        config: resolved configuration.
        note: how the tested checkpoint was chosen; None says it from ``selection``.
        trained_shot: supports in training, if the configuration is that of a test with another number.
        notes: what the result must say besides.

    Returns:
        The facts for the result file.
    """
    rule = config["selection"]
    key = {group: config[group]["name"] for group in ("data", "method", "backbone", "finetune", "recipe")}
    key |= {"fold": config["fold"], "shot": config["shot"], "seed": config["seed"], "experiment": config["group"]}
    shot = config["data"]["test_shot"] or config["shot"]
    drawn = (
        Path(config["data"]["episodes"]).name
        if config["data"]["episodes"]
        else config["data"].get("sampler", "stateless")
    )
    if "task" in config:
        drawn = f"{config['task']} tau {config['tau']} {config['merge']}"
    key["test"] = f"{shot}shot s{config['test_seed']} {drawn}"
    protocol = (config.get("protocol") or {}).get("name", SUITE)
    if protocol != SUITE:
        key["test"] += f", protocol {protocol}"
    for kind, names in (config.get("tested") or {}).items():
        if kind in ("left_out", "seen"):
            key["test"] += f" {'without' if kind == 'left_out' else 'trained on'} {', '.join(names)}"
    key["shot"] = config["shot"] if trained_shot is None else trained_shot
    selection = {"rule": rule, "note": note or SELECTION_NOTES[rule]}
    return RunFacts(identity(config), key, selection, config, versions(), commit(), notes)
