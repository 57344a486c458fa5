"""The Lightning module that trains the base learner on ordinary batches."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fss.lit.optim import Recipe, optimizer_of
from fss.lit.scoring import ScoringModule
from fss.metrics.multiclass import Confusion, MulticlassScores, multiclass_scores
from fss.model.multiclass_segmenter import MulticlassSegmenter
from fss.nn.distributed import mean_over_processes
from fss.types import IGNORE

SPLIT_FACTOR = 10.0
"""Learning rate of the groups above ``index_split`` relative to the others (constant of the release)."""


class BaseLearnerModule(ScoringModule):
    """Trains backbone, pyramid and classifier together, batch norm included.

    Attributes:
        model: the model to train.
        recipe: optimiser and schedule.
        index_split: of the groups encoder (0), pyramid (1) and classifier (2), those above this index learn ten times
            as fast; None uses the recipe's backbone factor instead.
        class_names: base classes, ascending.
        card: plain facts stored with every checkpoint.
    """

    def __init__(
        self,
        model: MulticlassSegmenter,
        recipe: Recipe,
        classes: list[str],
        index_split: int | None = None,
        card: dict[str, Any] | None = None,
    ) -> None:
        """Store the parts.

        Args:
            model: backbone and base learner.
            recipe: optimiser and schedule.
            classes: names of the base classes; label 1 is the first one.
            index_split: see the class.
            card: facts to store with checkpoints.
        """
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.index_split = index_split
        self.class_names = classes
        self.card = card or {}
        self.confusion = nn.ModuleDict({stage: Confusion(len(classes) + 1) for stage in ("val", "test")})

    def forward(self, images: Tensor) -> Tensor:
        """Segment images.

        Args:
            images: (B, 3, H, W).

        Returns:
            logits (B, classes, H, W).
        """
        logits: Tensor = self.model(images)
        return logits

    def configure_optimizers(self) -> Any:
        """Build the optimiser from the release's three groups."""
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer, scheduler = optimizer_of(self._groups(), self.recipe, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute the loss of a batch.

        Args:
            batch: images (B, 3, H, W) and labels (B, H, W).
            batch_idx: unused.

        Returns:
            Cross entropy over the pixels that are not ignored, of all processes together.
        """
        labels = batch.labels
        total = F.cross_entropy(self(batch.images), labels.long(), ignore_index=IGNORE, reduction="sum")
        loss = total / mean_over_processes((labels != IGNORE).sum()).clamp(min=1)
        self.log("train/loss_total", mean_over_processes(loss.detach()), prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count the pixels of a batch at network size.

        Args:
            batch: images and labels.
            batch_idx: unused.
        """
        self._count("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation images."""
        self._finish("val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Count the pixels of a batch at network size.

        Args:
            batch: images and labels.
            batch_idx: unused.
        """
        self._count("test", batch)

    def on_test_epoch_end(self) -> None:
        """Log the test scores and keep them in :attr:`test_scores` for the result file."""
        self.test_scores = self._finish("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the facts needed to rebuild the model.

        Args:
            checkpoint: Lightning's dictionary.
        """
        checkpoint["fss"] = self.card

    def result_scores(self) -> dict[str, Any]:
        """Return the ``scores`` of the result file, in percent."""
        scores = self.test_scores
        named = zip(self.class_names, scores.per_class[1:], strict=True)
        return {
            "miou": 100 * scores.miou,
            "miou_interval": None,
            "fb_iou": 100 * scores.fb_iou,
            "fb_iou_interval": None,
            "per_class": {name: 100 * value for name, value in named},
        }

    def result_episodes(self, data: Any) -> dict[str, Any]:
        """Return the ``episodes`` of the result file; here it counts images.

        Args:
            data: the data module.
        """
        return {"count": data.test_images, "hash": data.test_episodes_hash, "sampler": "images"}

    def _groups(self) -> list[dict[str, Any]]:
        parts = [("encoder", list(self.model.backbone.parameters()))]
        parts += [(group.name, group.parameters) for group in self.model.head.param_groups()]
        if self.index_split is None:
            factors = [self.recipe.backbone_lr_factor, 1.0, 1.0]
        else:
            factors = [SPLIT_FACTOR if index > self.index_split else 1.0 for index in range(len(parts))]
        return [
            {"params": params, "name": name, "lr_factor": factor}
            for (name, params), factor in zip(parts, factors, strict=True)
        ]

    def _confusion(self, stage: str) -> Confusion:
        metric = self.confusion[stage]
        assert isinstance(metric, Confusion)
        return metric

    def _count(self, stage: str, batch: Any) -> None:
        logits = self(batch.images)
        self.watch(stage, logits)
        self._confusion(stage).update(logits.argmax(dim=1), batch.labels.long())

    def _finish(self, stage: str) -> MulticlassScores:
        scores = multiclass_scores(self._confusion(stage).compute())
        self._confusion(stage).reset()
        self.log(f"{stage}/miou", 100 * scores.miou, prog_bar=True)
        self.log(f"{stage}/fb_iou", 100 * scores.fb_iou)
        for name, value in zip(self.class_names, scores.per_class[1:], strict=True):
            self.log(f"{stage}/iou_{name}", 100 * value)
        return scores
