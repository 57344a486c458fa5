"""What a run leaves beside its result; written before it, because a result says that the run is finished."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from fss.checkpoints.tuned import save_tuned
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.episodic import EpisodicModule
from fss.reports.preview_grid import preview_grid


class RunArtifacts(pl.Callback):
    """Writes the tuned values and draws the previews when the test ends.

    Args:
        folder: of the run.
        name: heading of the prediction column.
        previews: episodes to draw.
        finetune: knows what trained.
    """

    def __init__(self, folder: Path, name: str, previews: int, finetune: BackboneFinetune) -> None:
        self.folder, self.name, self.previews, self.finetune = folder, name, previews, finetune

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and draw, in one process."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, EpisodicModule)
        report = self.finetune.report
        if pl_module.card and report is not None and report.trainable:  # a test of a checkpoint has no card
            save_tuned(self.folder / "tuned.pt", pl_module.model.backbone, pl_module.card)
        if self.previews and (self.folder / "previews.npz").is_file():
            preview_grid({self.name: self.folder}, self.folder / "previews.png", episodes=self.previews)
