"""Inject a fine-tuning strategy into the backbone."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl

from fss.finetune.base import Strategy
from fss.model.segmenter import FewShotSegmenter
from fss.types import TuneReport

log = logging.getLogger(__name__)


class BackboneFinetune(pl.Callback):
    """Applies a strategy in the ``setup`` of every stage, before checkpoints are restored and the optimiser is built.

    Attributes:
        strategy: the strategy.
        report: what the strategy changed, after ``setup``.
    """

    def __init__(self, strategy: Strategy) -> None:
        """Store the strategy.

        Args:
            strategy: applied to ``module.model.backbone`` only; other backbones stay untouched.
        """
        self.strategy = strategy
        self.report: TuneReport | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Apply the strategy (idempotent) and fix the mode of batch norm.

        Args:
            trainer: the trainer.
            pl_module: module with a few-shot ``model``.
            stage: Lightning's stage.
        """
        model = pl_module.model
        assert isinstance(model, FewShotSegmenter)
        backbone = model.backbone
        earlier = self.report
        self.report = self.strategy.apply(backbone)
        if earlier is not None:  # layers are swapped once, so only the first report has the notes
            self.report.notes = earlier.notes
        elif trainer.is_global_zero:
            log.info(
                "Fine-tuning %s: %s of %s backbone parameters train",
                self.report.strategy,
                f"{self.report.trainable_total:,}",
                f"{self.report.plain_total:,}",
            )
        pl_module.train(stage == "fit")  # Lightning keeps the mode it finds; batch norm obeys norm_mode

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the strategy change its values after the optimiser step, e.g. bound singular values.

        Args:
            trainer: the trainer.
            pl_module: module with a few-shot ``model``.
            outputs: outputs of the step.
            batch: episodes.
            batch_idx: number of the batch in the epoch.
        """
        model = pl_module.model
        assert isinstance(model, FewShotSegmenter)
        self.strategy.after_step(model.backbone)
