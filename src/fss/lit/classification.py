"""Pre-train a backbone by classification, as ImageNet does for real images."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from fss.model.features import run_stages
from fss.types import ImageBackbone


class Classifier(pl.LightningModule):
    """A backbone, global average pooling and a linear layer, trained with cross entropy.

    Attributes:
        backbone: the backbone to pre-train.
        accuracy: accuracy of the last validation, in [0, 1].
    """

    def __init__(self, backbone: nn.Module, classes: int, lr: float = 3e-3) -> None:
        """Combine the parts.

        Args:
            backbone: a staged backbone, dilated as it will be used, because dilation changes its features.
            classes: number of classes.
            lr: maximum learning rate of a one-cycle schedule.
        """
        super().__init__()
        assert isinstance(backbone, ImageBackbone)
        self.backbone = backbone
        self.fc = nn.Linear(backbone.channels[-1], classes)
        self.lr = lr
        self.accuracy = 0.0
        self._hits: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: normalised RGB, (N, 3, H, W).

        Returns:
            logits (N, classes).
        """
        last = len(self.backbone.channels) - 1
        found, _ = run_stages(self.backbone, [x], range(last + 1), (last,))
        logits: Tensor = self.fc(found[last][0].mean(dim=(2, 3)))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch.

        Args:
            batch: images (N, 3, H, W) and labels (N).
            batch_idx: unused.

        Returns:
            Cross entropy.
        """
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count correct predictions.

        Args:
            batch: images and labels.
            batch_idx: unused.
        """
        self._hits.append((self(batch[0]).argmax(dim=1) == batch[1]).float())

    def on_validation_epoch_end(self) -> None:
        """Compute the accuracy."""
        self.accuracy = float(torch.cat(self._hits).mean())
        self._hits.clear()
        self.log("accuracy", self.accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Use AdamW with a one-cycle schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.02)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, max_lr=self.lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
