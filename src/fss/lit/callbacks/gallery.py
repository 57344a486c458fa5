"""Keep the worst and the best test episodes as images."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor
from torch.nn.functional import interpolate

from fss.lit.callbacks.pixels import Denormalise, of_all_processes
from fss.lit.callbacks.recording_folder import RecordingFolder
from fss.lit.episodic import EpisodicModule
from fss.types import IGNORE, Episode

NAME = "gallery.npz"
_SIDE = 256


class GalleryRecorder(pl.Callback):
    """Writes ``gallery.npz``: for every class, the test episodes with the lowest and the highest foreground IoU.

    At most ``count`` worst and best episodes of each class are held at any time. At equal IoU, more wrong pixels count
    as worse: a missed object of five pixels tells less than one that fills the image.
    """

    def __init__(self, folder: RecordingFolder, count: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Choose the number of episodes.

        Args:
            folder: receives the file.
            count: worst, and best, episodes kept of each class; 0 keeps none.
            mean: per channel, in [0, 1], to undo the normalisation.
            std: likewise.
        """
        self.folder = folder
        self.count = count
        self._pixels = Denormalise(mean, std)
        self._kept: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the episodes of an earlier test."""
        self._kept = {}

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Episode,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the episodes of a batch that are among the worst or best of their class so far."""
        if not self.count:
            return
        assert isinstance(pl_module, EpisodicModule)
        for i, index in enumerate(batch.index.tolist()):
            name = pl_module.class_names["test"][int(batch.class_index[i])]
            iou, mask, truth = float(outputs["iou"][i]), outputs["masks"][i], batch.query_label[i]
            wrong = int(((mask != truth) & (truth != IGNORE)).sum())
            for end, order in (("worst", (iou, -wrong, index)), ("best", (-iou, wrong, index))):
                kept = self._kept.setdefault((end, name), [])
                full = len(kept) == self.count and order >= kept[-1]["order"]
                if full or any(row["index"] == index for row in kept):  # samplers may repeat an episode
                    continue
                kept.append({"order": order, "end": end, "index": index, "class_name": name, "iou": iou})
                kept[-1] |= self._images(batch, i, mask)
                kept.sort(key=lambda row: row["order"])
                del kept[self.count :]

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file, in one process."""
        rows = of_all_processes([row for kept in self._kept.values() for row in kept])
        self._kept = {}
        if not rows or not trainer.is_global_zero:
            return
        chosen = leading(rows, self.count)
        arrays: dict[str, Any] = {key: np.array([r[key] for r in chosen]) for key in chosen[0] if key != "order"}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        self.folder.write(NAME, content.getvalue())

    def _images(self, batch: Episode, i: int, mask: Tensor) -> dict[str, Any]:
        """Return the pixels of one episode, shrunk to the size of a figure."""
        return {
            "query": self._pixels(_shrunk(batch.query[i], "area")),
            "support": self._pixels(_shrunk(batch.support_images[i, -1], "area")),  # the first one sampled
            "support_mask": _labels(batch.support_labels[i, -1]),
            "truth": _labels(batch.query_label[i]),
            "prediction": _labels(mask),
        }


def leading(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Join the rows of several processes.

    Args:
        rows: with ``end``, ``class_name``, ``index`` and ``order``; an episode may occur twice.
        count: number of rows to keep of each end and class.

    Returns:
        Rows, worst before best, sorted by class name and ``order``.
    """
    kept: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda r: r["order"]):
        some = kept.setdefault((row["end"], row["class_name"]), {})
        if len(some) < count:
            some.setdefault(row["index"], row)
    keys = sorted(kept, key=lambda key: (key[0] != "worst", key[1]))
    return [row for key in keys for row in kept[key].values()]


def _shrunk(image: Tensor, mode: str) -> Tensor:
    """Shrink (C, H, W) so that no side is longer than a figure needs."""
    longest = max(image.shape[-2:])
    if longest <= _SIDE:
        return image
    size = [max(1, round(side * _SIDE / longest)) for side in image.shape[-2:]]
    return interpolate(image[None].float(), size, mode=mode)[0]


def _labels(label: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    shrunk: np.ndarray[Any, np.dtype[np.uint8]] = _shrunk(label[None], "nearest")[0].cpu().numpy().astype(np.uint8)
    return shrunk
