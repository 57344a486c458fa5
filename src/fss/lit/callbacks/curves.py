"""Record the mIoU on training and on novel classes of every epoch."""

from __future__ import annotations

import csv
import io
import logging
import math
from typing import Any

import pytorch_lightning as pl

from fss.lit.callbacks.recording_folder import RecordingFolder
from fss.lit.episodic import EpisodicModule

log = logging.getLogger(__name__)

NAME = "curves.csv"
COLUMNS = ("epoch", "train_miou", "novel_miou")


class CurveRecorder(pl.Callback):
    """Writes ``curves.csv``: one row per epoch with the logged scores, in percent.

    ``train_miou`` is measured on the epoch's augmented training episodes, while the weights change; ``novel_miou`` on
    the validation on novel classes after the epoch, empty if none ran. The rows are stored in checkpoints, so a resumed
    training has all of them.

    Args:
        folder: receives the file.
    """

    def __init__(self, folder: RecordingFolder) -> None:
        self.folder = folder
        self.rows: list[list[float]] = []
        self._novel = math.nan

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, and the score of a validation whose epoch has not ended."""
        return {"rows": [list(row) for row in self.rows], "novel": self._novel}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows recorded before an interruption.

        Args:
            state_dict: state from the checkpoint.
        """
        self.rows = [list(row) for row in state_dict["rows"]]
        self._novel = float(state_dict["novel"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn if a resumed training has epochs that were not recorded."""
        if trainer.is_global_zero and trainer.current_epoch > len(self.rows):
            log.warning(
                "Recording begins with epoch %d: it was off before. resume=never records all epochs.",
                trainer.current_epoch + 1,
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the score on novel classes."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._novel = float(trainer.callback_metrics.get("val/miou", math.nan))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row; every process must compute the score, because it is reduced over all of them."""
        assert isinstance(pl_module, EpisodicModule)
        train = 100 * pl_module.epoch_scores().miou
        epoch = trainer.current_epoch + 1
        self.rows = [row for row in self.rows if row[0] < epoch] + [[epoch, train, self._novel]]
        self._novel = math.nan
        if trainer.is_global_zero:
            self.folder.write(NAME, self._text().encode())

    def _text(self) -> str:
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for epoch, *scores in self.rows:
            table.writerow([int(epoch), *("" if math.isnan(score) else f"{score:.6f}" for score in scores)])
        return text.getvalue()
