"""Keep a few test episodes as previews."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from fss.files import atomic
from fss.lit.callbacks.pixels import Denormalise, of_all_processes
from fss.lit.episodic import EpisodicModule
from fss.types import Episode


class PreviewRecorder(pl.Callback):
    """Stores evenly spread test episodes in ``previews.npz``: query, first support, truth, prediction, IoU.

    The same test stream gives the same episodes in every run, so runs can be shown side by side.
    """

    def __init__(self, folder: Path, count: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Choose the number of episodes.

        Args:
            folder: receives ``previews.npz``.
            count: number of episodes to keep; 0 keeps none.
            mean: per channel, in [0, 1], to undo the normalisation.
            std: likewise.
        """
        self.folder = folder
        self.count = count
        self._image = Denormalise(mean, std)
        self._wanted: set[int] = set()
        self._rows: list[dict[str, Any]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the episodes."""
        total = len(trainer.datamodule.streams.test)  # type: ignore[attr-defined]
        self._wanted = set(np.linspace(0, total - 1, min(self.count, total)).round().astype(int).tolist())
        self._rows = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Episode,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the wanted episodes of a batch."""
        assert isinstance(pl_module, EpisodicModule)
        names = pl_module.class_names["test"]
        for i, index in enumerate(batch.index.tolist()):
            if index not in self._wanted:
                continue
            self._rows.append(
                {
                    "index": index,
                    "query": self._image(batch.query[i]),
                    "support": self._image(batch.support_images[i, -1]),  # the first one sampled
                    "support_mask": batch.support_labels[i, -1].cpu().numpy().astype(np.uint8),
                    "truth": batch.query_label[i].cpu().numpy().astype(np.uint8),
                    "prediction": outputs["masks"][i].cpu().numpy().astype(np.uint8),
                    "iou": outputs["iou"][i],
                    "class_name": names[int(batch.class_index[i])],
                }
            )

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file."""
        rows = sorted(of_all_processes(self._rows), key=lambda r: int(r["index"]))
        if not rows or not trainer.is_global_zero:
            return
        with atomic(self.folder / "previews.npz") as file:
            arrays: dict[str, Any] = {k: np.array([r[k] for r in rows]) for k in rows[0]}
            np.savez_compressed(file, **arrays)
