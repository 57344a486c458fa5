"""Lightning's W&B logger, made fail-safe: it starts in bounded time, and failures of W&B never reach the training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities import rank_zero_only

from fss.errors import first_line
from fss.tracking.labels import Labels
from fss.tracking.wandb_run import start

log = logging.getLogger(__name__)

STEP = "trainer/global_step"
EPOCH = "epoch"

METRICS: tuple[dict[str, Any], ...] = (
    {"name": STEP, "hidden": True},
    {"name": EPOCH, "hidden": True},
    {"name": "train/loss*", "step_metric": STEP, "summary": "min"},
    {"name": "train/miou", "step_metric": EPOCH, "summary": "max"},
    {"name": "train/fb_iou", "step_metric": EPOCH, "summary": "max"},
    {"name": "val/loss", "step_metric": EPOCH, "summary": "min"},
    {"name": "val/*", "step_metric": EPOCH, "summary": "max"},
    {"name": "spectrum/*", "step_metric": STEP},
)
"""Per metric, W&B's x-axis and the value in the summary: the lowest loss, the highest score. Test scores are single
values."""


class GuardedWandbLogger(WandbLogger):
    """Logs to W&B, or to a local file that ``wandb sync`` uploads.

    The first failure of W&B is reported; from then on nothing more is logged there.

    Attributes:
        folder: run folder.
        labels: W&B labels of the run.
    """

    def __init__(self, folder: Path, name: str, project: str, run_id: str, labels: Labels, online: bool) -> None:
        """Store the settings; the W&B run starts at the first use.

        Args:
            folder: run folder.
            name: run name.
            project: W&B project.
            run_id: W&B id; a continued run keeps its own.
            labels: W&B labels of the run.
            online: whether to try to reach W&B.
        """
        super().__init__(name=name, save_dir=folder, project=project, id=run_id, offline=not online)
        self.folder = folder
        self.labels = labels
        self._online = online
        self._lost = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return the W&B run, which starts at the first access."""
        if self._experiment is None and not self._lost:
            try:
                self._experiment = self._begin()
            except Exception as error:
                self._lose("starting", error)
        return DummyLogger().experiment if self._experiment is None else self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars.

        Args:
            metrics: name -> value.
            step: optimiser step.
        """
        row = dict(metrics) if step is None else {**metrics, STEP: step}
        self.attempt("logging", lambda run: run.log(row))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log nothing: the run starts with the whole configuration.

        Args:
            params: unused.
            args: unused.
            kwargs: unused.
        """

    def attempt(self, doing: str, action: Callable[[Any], object]) -> None:
        """Call ``action`` with the W&B run; a failure ends the logging to W&B and nothing else.

        Args:
            doing: description of the action, for the message.
            action: called with the W&B run.
        """
        run = self.experiment
        if self._lost:
            return
        try:
            action(run)
        except Exception as error:
            self._lose(doing, error)

    def _begin(self) -> Any:
        labels = self.labels
        names = {key: self._wandb_init[key] for key in ("name", "project", "id", "resume")}
        grouping = {"group": labels.group, "job_type": labels.job_type, "tags": list(labels.tags)}
        run = start(self.folder, self._online, {**names, **grouping, "config": labels.config})
        for metric in METRICS:
            run.define_metric(**metric)
        return run

    def _lose(self, doing: str, error: Exception) -> None:
        self._lost = True
        log.warning(
            "W&B failed while %s (%s: %s). The run goes on without it; its other logs and its result are complete. "
            "What W&B had is in %s.",
            doing, type(error).__name__, first_line(error), self.folder / "wandb",
        )  # fmt: skip
