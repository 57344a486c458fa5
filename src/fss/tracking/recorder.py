"""What W&B gets besides scalars: spectra during training; images, tables and artifacts of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import wandb
from numpy.typing import NDArray

from fss.backbones.staged import StagedModule
from fss.config.base_learner import NAME, checkpoint_of
from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.surgery import LAST_STAGE
from fss.results import Result, load_result
from fss.tracking.media import base_identity, base_learner, class_table, images, tuned_values
from fss.tracking.wandb_logger import EPOCH, STEP, GuardedWandbLogger

Spectra = dict[int, dict[str, NDArray[np.float64]]]
"""stage -> layer -> its singular values, in the pretrained order."""

LAYER_COLUMNS: list[str | int] = ["layer", "stage", "values", "mean change %", "most grown %", "most fallen %"]
"""Columns of the table of spectra; changes are relative to the pretrained singular values."""


class WandbRecorder(pl.Callback):
    """Records a run at W&B; must come after the result writer, whose files it reads.

    Histograms of singular values are per stage, since a network has some fifty layers.
    """

    def __init__(self, logger: GuardedWandbLogger, name: str, base: tuple[str, Path] | None = None) -> None:
        """Store where to record.

        Args:
            logger: W&B logger of the run.
            name: run name.
            base: identity and checkpoint of the base learner that the run builds on, if any.
        """
        self.logger = logger
        self.name = name
        self.base = base
        self._pretrained: Spectra = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep the pretrained singular values; no checkpoint has been restored yet."""
        if trainer.is_global_zero and not self._pretrained:
            self._pretrained = spectra(pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the spectra before the first step."""
        if trainer.global_step == 0:
            self._log_spectra(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the spectra after an epoch."""
        self._log_spectra(
            trainer, pl_module, max(trainer.global_step - 1, 0)
        )  # Lightning's count at the end of an epoch

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the test on rank 0; the result is already written."""
        if not trainer.is_global_zero:
            return
        result = load_result(self.logger.folder / "result.json")
        step = {STEP: trainer.global_step}
        tables = self._tables(result, spectra(pl_module))
        # Calls that need no answer come first: tables and artifacts fail if W&B has become unreachable.
        self.logger.attempt("writing the summary", lambda run: run.summary.update(self._summary(result)))
        self.logger.attempt("recording images", lambda run: run.log({**_images(result), **step}))
        self.logger.attempt("recording tables", lambda run: run.log({**tables, **step}))
        self.logger.attempt("recording artifacts", lambda run: self._artifacts(run, result))

    def _log_spectra(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> None:
        if not (trainer.is_global_zero and self._pretrained):
            return
        rows: dict[str, Any] = {EPOCH: trainer.current_epoch, STEP: step}
        for stage, layers in spectra(module).items():
            before = np.concatenate(list(self._pretrained[stage].values()))
            now = np.concatenate(list(layers.values()))
            change = 100 * (now - before) / np.maximum(np.abs(before), 1e-12)
            rows[f"spectrum/stage{stage}"] = now
            rows[f"spectrum/stage{stage}_change_percent"] = change

        def log(run: Any) -> None:
            run.log({k: wandb.Histogram(v.tolist()) if isinstance(v, np.ndarray) else v for k, v in rows.items()})

        self.logger.attempt("recording spectra", log)

    def _tables(self, result: Result, tuned: Spectra) -> dict[str, Any]:
        tables: dict[str, Any] = {"test/classes": class_table(result)}
        if tuned:
            tables["test/spectra"] = spectrum_table(self._pretrained, tuned)
        return tables

    def _summary(self, result: Result) -> dict[str, Any]:
        """Return what goes into the summary besides the logged scalars."""
        summary: dict[str, Any] = {
            "trained_values": result.parameters.backbone_trainable,
            "trained_percent": 100 * result.parameters.backbone_trainable / max(result.parameters.backbone_total, 1),
            "test_episodes": result.episodes.count,
            "train_seconds": result.cost.train_seconds,
            "test_seconds": result.cost.test_seconds,
            "memory_mb": result.cost.peak_memory_mb,
            "selection": result.selection.rule,
        }
        if result.scores.miou_interval is not None:
            summary["test/miou_low"], summary["test/miou_high"] = result.scores.miou_interval
        return summary | {f"tables/{p.table}": getattr(result.scores, p.metric) for p in self.logger.labels.table_rows}

    def _artifacts(self, run: Any, result: Result) -> None:
        base = None if self.base is None else base_identity(*self.base)
        if base is not None:
            # Logged as an input: run.use_artifact refuses offline, and waits for the upload online.
            run._log_artifact(base_learner(base, {}), is_user_created=True, use_after_commit=True)
        if (result.folder / "tuned.pt").is_file():
            run.log_artifact(tuned_values(result, self.name, base))
        own = checkpoint_of(result.folder, result.selection.rule)
        if result.key.method == NAME and own.is_file():
            facts = {"data": result.key.data, "backbone": result.key.backbone, "fold": result.key.fold}
            run.log_artifact(base_learner(base_identity(result.identity, own), facts | {"miou": result.scores.miou}))


def spectra(module: pl.LightningModule) -> Spectra:
    """Read the trainable singular values.

    Args:
        module: has a ``model`` with a staged backbone.

    Returns:
        The values; empty for strategies that train no singular value.
    """
    backbone = getattr(module.model, "backbone", None)
    assert isinstance(backbone, StagedModule)
    names = {module: name for name, module in backbone.named_modules()}
    found: Spectra = {}
    for stage in range(LAST_STAGE + 1):
        for layer in backbone.stage(stage).modules():
            if isinstance(layer, FactoredLayer) and _trains(layer):
                values = layer.values.detach().double().cpu().numpy().copy()
                found.setdefault(stage, {})[names[layer]] = values
    return found


def spectrum_table(before: Spectra, after: Spectra) -> wandb.Table:
    """Make the table of how much each layer's singular values have changed.

    Args:
        before: pretrained values.
        after: tuned values of the same layers.

    Returns:
        One row per layer, see :data:`LAYER_COLUMNS`.
    """
    rows: list[list[Any]] = []
    for stage, layers in after.items():
        for name, now in layers.items():
            old = before[stage][name]
            change = 100 * (now - old) / np.maximum(np.abs(old), 1e-12)
            spread = [float(np.abs(change).mean()), float(change.max()), float(change.min())]
            rows.append([name, stage, len(now), *spread])
    return wandb.Table(columns=LAYER_COLUMNS, data=rows)


def _images(result: Result) -> dict[str, Any]:
    kept = result.folder / "previews.npz"
    return images(kept) if result.files.get("previews") and kept.is_file() else {}


def _trains(layer: FactoredLayer) -> bool:
    return layer.S.requires_grad or (layer.p is not None and layer.p.requires_grad)
