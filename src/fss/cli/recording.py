"""What a run records for figures when it is asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fss.cli.values import whole
from fss.errors import FssError

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fss.cli.trainer import Job

FOLDER = "recording"
"""Below the run's folder."""


def check_recording(config: dict[str, Any]) -> None:
    """Check the options of the group ``recording``; checkpoints from before it lack them.

    Args:
        config: resolved, plain values.

    Raises:
        FssError: on the first wrong value.
    """
    node = config.get("recording") or {}
    enabled = node.get("enabled", False)
    if not isinstance(enabled, bool):
        raise FssError(f"recording.enabled={enabled} is not allowed: give true or false, or recording=on.")
    whole("recording.every", node.get("every", 1), 1, None)
    for name in ("pictures", "maps", "gallery"):
        whole(f"recording.{name}", node.get(name, 0), 0, None)
    layers = node.get("layers", [])
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise FssError(f"recording.layers={layers} is not allowed: give a list of names, e.g. [layer3.5.conv2].")
    if enabled and config["selection"] == "base":
        raise FssError(
            "recording.enabled=true with selection=base is not allowed: the curve of novel classes needs validation on "
            "novel episodes, and selection=base validates on base classes. Give selection=novel or selection=last."
        )


def records(config: dict[str, Any]) -> bool:
    """Tell whether a training records something; base learners have no episodes to record.

    Args:
        config: resolved, plain values.
    """
    return bool((config.get("recording") or {}).get("enabled")) and config["method"]["name"] != "base_learner"


def recording_callbacks(job: Job) -> list[pl.Callback]:
    """Return the callbacks that record a training, none unless it is asked for.

    They come after the one that injects the strategy: singular values before training are taken in its ``setup``; and
    before the one that writes the result, which says that the run is finished.

    Args:
        job: the run.
    """
    if not records(job.config):
        return []
    from fss.backbones.weights import IMAGENET_MEAN, IMAGENET_STD
    from fss.lit.callbacks.components import ComponentOptions, ComponentRecorder
    from fss.lit.callbacks.curves import CurveRecorder
    from fss.lit.callbacks.gallery import GalleryRecorder
    from fss.lit.callbacks.recording_folder import RecordingFolder
    from fss.lit.callbacks.spectra import SpectrumRecorder

    folder = RecordingFolder(job.folder / FOLDER, _about(job.config))
    node = job.config["recording"]
    looked = ComponentOptions(node["pictures"], node["maps"], tuple(node["layers"]))
    return [
        CurveRecorder(folder),
        SpectrumRecorder(folder, node["every"]),
        ComponentRecorder(folder, looked, IMAGENET_MEAN, IMAGENET_STD),
        GalleryRecorder(folder, node["gallery"], IMAGENET_MEAN, IMAGENET_STD),
    ]


def _about(config: dict[str, Any]) -> dict[str, Any]:
    """Return what tells a recording from another one before the run has a result."""
    key = {group: config[group]["name"] for group in ("data", "method", "backbone", "finetune", "recipe")}
    key |= {"fold": config["fold"], "shot": config["shot"], "seed": config["seed"], "experiment": config["group"]}
    tuned = {name: value for name, value in config["finetune"].items() if not name.startswith("_")}
    return {"key": key, "finetune": tuned, "epochs": config["data"]["epochs"]}
