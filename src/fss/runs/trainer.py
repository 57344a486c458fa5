"""The Lightning trainer of a run, with the callbacks that select, record and write."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from fss.commands import program
from fss.config.recording import FOLDER, records
from fss.errors import FssError
from fss.instantiate import Node, make
from fss.lit.callbacks.best_checkpoint import BestCheckpoint
from fss.lit.callbacks.components import ComponentOptions, ComponentRecorder
from fss.lit.callbacks.cost import CostMeter
from fss.lit.callbacks.curves import CurveRecorder
from fss.lit.callbacks.divergence import DivergenceGuard
from fss.lit.callbacks.episodes import EpisodeRecorder
from fss.lit.callbacks.feature_caching import FeatureCaching
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.gallery import GalleryRecorder
from fss.lit.callbacks.previews import PreviewRecorder
from fss.lit.callbacks.progress_log import ProgressLog
from fss.lit.callbacks.recording_folder import RecordingFolder
from fss.lit.callbacks.result import ResultWriter, RunFacts
from fss.lit.callbacks.seeding import StepSeed
from fss.lit.callbacks.snapshots import Snapshots
from fss.lit.callbacks.spectra import SpectrumRecorder
from fss.lit.checkpoint_io import AtomicCheckpointIO
from fss.lit.history import logged_rows
from fss.lit.layer_sync import SharedNorms
from fss.runs.artifacts import RunArtifacts
from fss.runs.build import feature_cache_mb
from fss.runs.job import Job
from fss.types import InputSpec


def checkpointing(job: Job) -> list[pl.Callback]:
    """Return the callbacks that keep the best and the last checkpoint by the run's selection rule.

    Args:
        job: the run.

    Returns:
        The callbacks; with ``selection=last`` nothing is compared and the last checkpoint alone is kept.
    """
    folder = job.folder / "checkpoints"
    snapshots = Snapshots(folder / "last.ckpt", job.config["checkpoint_minutes"], logged_rows)
    if job.config["selection"] == "last":
        return [snapshots]
    return [BestCheckpoint(folder), snapshots]


def build_trainer(
    job: Job,
    finetune: BackboneFinetune,
    known: RunFacts,
    images: InputSpec,
    logger: Sequence[Logger] | bool,
    more: Sequence[pl.Callback] = (),
) -> pl.Trainer:
    """Build Lightning's trainer with the callbacks of every run.

    Args:
        job: the run.
        finetune: injects the strategy.
        known: facts for the result file.
        images: normalisation of the backbone, to undo it in pictures.
        logger: loggers, or False for none.
        more: other callbacks.

    Returns:
        The trainer.
    """
    config = job.config
    cost = CostMeter()
    previews = PreviewRecorder(job.folder, config["previews"], images.mean, images.std)
    callbacks = [
        finetune,
        StepSeed(config["seed"]),
        ProgressLog(),
        cost,
        FeatureCaching(feature_cache_mb(config)),
        previews,
        EpisodeRecorder(job.folder),
        RunArtifacts(job.folder, config["finetune"]["name"], config["previews"], finetune),
        *(recording_callbacks(job, images) if more else ()),  # a test alone records nothing
        ResultWriter(job.folder, known, finetune, cost),
        *more,
    ]
    return assemble(job, logger, callbacks, enable_checkpointing=bool(more))


def assemble(job: Job, logger: Sequence[Logger] | bool, callbacks: Sequence[pl.Callback], **options: Any) -> pl.Trainer:
    """Build Lightning's trainer from a run's options.

    Args:
        job: the run.
        logger: loggers, or False for none.
        callbacks: all of them.
        options: other arguments of the trainer.

    Returns:
        The trainer.
    """
    chosen = dict(job.config["trainer"])
    check_arguments(chosen)
    if job.config["selection"] == "last" and not records(job.config):
        chosen["limit_val_batches"] = 0
    if not sys.stdout.isatty():  # a bar is unreadable in a file, where ProgressLog writes its lines
        chosen["enable_progress_bar"] = False
    return make(
        "trainer",
        chosen,
        pl.Trainer,
        default_root_dir=str(job.folder),
        logger=logger,
        callbacks=[DivergenceGuard(job.folder / "checkpoints"), *callbacks],
        plugins=[AtomicCheckpointIO(), SharedNorms()],
        use_distributed_sampler=False,
        enable_model_summary=False,
        **options,
    )


def check_arguments(node: Node) -> None:
    """Check the types of the trainer's arguments: Lightning stores some as they are, and fails in the first step.

    Args:
        node: the group ``trainer``.

    Raises:
        FssError: on the first argument of a wrong type.
    """
    hints = get_type_hints(inspect.unwrap(pl.Trainer.__init__))
    for name, value in node.items():
        if name in hints and not _fits(value, hints[name]):
            allowed = " or ".join(dict.fromkeys(_words(hints[name])))
            raise FssError(
                f"trainer.{name}={value} is not allowed: Lightning's Trainer takes {allowed}. Devices that are there: "
                f"fss doctor. All options: {program()} --help"
            )


def _words(hint: Any) -> Iterator[str]:
    """Yield what an annotation allows, in words."""
    if get_origin(hint) in (Union, UnionType):
        for one in get_args(hint):
            yield from _words(one)
    elif get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    else:
        kind = get_origin(hint) or hint
        known = {int: "a whole number", float: "a number", bool: "true", str: "text", list: "a list", dict: "a mapping"}
        yield from (
            ("true", "false") if kind is bool else [known.get(kind, "null")] if kind in (*known, NoneType) else []
        )


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a plain value is of an annotated type."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        return isinstance(value, int | float)
    kind = origin or hint
    return isinstance(kind, type) and isinstance(value, kind)


def recording_callbacks(job: Job, images: InputSpec) -> list[pl.Callback]:
    """Return the callbacks that record a training, none unless it is asked for.

    They come after the one that injects the strategy: singular values before training are taken in its ``setup``; and
    before the one that writes the result, which says that the run is finished.

    Args:
        job: the run.
        images: normalisation of the backbone.
    """
    if not records(job.config):
        return []

    folder = RecordingFolder(job.folder / FOLDER, _about(job.config))
    node = job.config["recording"]
    looked = ComponentOptions(node["episodes"], node["maps"], tuple(node["layers"]))
    return [
        CurveRecorder(folder),
        SpectrumRecorder(folder, node["every"]),
        ComponentRecorder(folder, looked, images.mean, images.std),
        GalleryRecorder(folder, node["gallery"], images.mean, images.std),
    ]


def _about(config: dict[str, Any]) -> dict[str, Any]:
    """Return what tells a recording from another one before the run has a result."""
    key = {group: config[group]["name"] for group in ("data", "method", "backbone", "finetune", "recipe")}
    key |= {"fold": config["fold"], "shot": config["shot"], "seed": config["seed"], "experiment": config["group"]}
    tuned = {name: value for name, value in config["finetune"].items() if not name.startswith("_")}
    return {"key": key, "finetune": tuned, "epochs": config["data"]["epochs"]}
