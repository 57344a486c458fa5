"""What a run records for figures when it is asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fss.config.recording import FOLDER, records

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fss.runs.job import Job


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
    looked = ComponentOptions(node["images"], node["maps"], tuple(node["layers"]))
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
