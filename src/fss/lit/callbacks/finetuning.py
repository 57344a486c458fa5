"""Inject a fine-tuning strategy into the backbone."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers.surgery import LAST_STAGE
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

        Raises:
            FssError: if all that the strategy trains lies in stages that the head does not read.
        """
        model = pl_module.model
        assert isinstance(model, FewShotSegmenter)
        backbone = model.backbone
        earlier = self.report
        self.report = self.strategy.apply(backbone)
        leave_out_later_stages(model, self.report)
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

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the strategy prepare the backbone for the step, e.g. the mode of batch norm.

        Args:
            trainer: the trainer.
            pl_module: module with a few-shot ``model``.
            batch: episodes.
            batch_idx: number of the batch in the epoch.
        """
        model = pl_module.model
        assert isinstance(model, FewShotSegmenter)
        self.strategy.before_step(model.backbone, batch_idx == 0)

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


def leave_out_later_stages(model: FewShotSegmenter, report: TuneReport) -> None:
    """Freeze the stages after the last one that the head reads: they do not run, so they have no gradients.

    Parallel training would wait for them, and the result would count them.

    Args:
        model: with its strategy injected.
        report: what trains; changed in place.

    Raises:
        FssError: if nothing else trains.
    """
    backbone, spec = model.backbone, model.head.spec
    last = max((*spec.stages, *spec.taps))
    for index in range(last + 1, LAST_STAGE + 1):
        # Norms of a transformer's last stage may belong to the maps of all stages; its blocks do not.
        for module in [backbone.stage(index)] if backbone.stepwise else backbone.blocks(index):
            module.requires_grad_(False)
    trains = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    left_out = sum(count for name, count in report.trainable.items() if name not in trains)
    if not left_out:
        return
    report.trainable = {name: count for name, count in report.trainable.items() if name in trains}
    if not trains:
        raise FssError(
            f"finetune={report.strategy} trains values after stage {last} alone, and method={model.head.name} reads no "
            f"stage after it: nothing would train. Choose stages up to {last}, or finetune=freeze."
        )
    report.notes.append(
        f"method={model.head.name} reads no stage after stage {last}: the {left_out:,} values that "
        f"finetune={report.strategy} chose there do not train"
    )
