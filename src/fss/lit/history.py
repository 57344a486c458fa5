"""The CSV log of a run, which continues from the last checkpoint."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only


class History(CSVLogger):
    """Lightning's CSV logger, but without deleting the rows logged before an interruption.

    Args:
        folder: of the run; the file is ``csv/metrics.csv`` below it.
        keep: number of rows to keep of an earlier file: those logged before the checkpoint; later ones are logged
            again.
    """

    def __init__(self, folder: Path, keep: int = 0) -> None:
        super().__init__(folder, name="csv", version="")
        self.file = folder / "csv" / "metrics.csv"
        self.keep = keep

    @property
    def experiment(self) -> Any:
        """Return the writer, after restoring the rows to keep."""
        first = self._experiment is None and rank_zero_only.rank == 0  # type: ignore[attr-defined]
        kept, columns = self._read() if first else ([], [])
        writer: Any = super().experiment
        if kept:
            writer.metrics_keys = columns
            with open(self.file, "w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows(kept)
        return writer

    def rows(self) -> int:
        """Flush the buffer, and count the rows of the file."""
        self.save()
        if not self.file.is_file():
            return 0
        with open(self.file, newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.DictReader(file))

    def _read(self) -> tuple[list[dict[str, str]], list[str]]:
        if not self.keep or not self.file.is_file():
            return [], []
        with open(self.file, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows = list(table)[: self.keep]
            return rows, list(table.fieldnames or [])


def logged_rows(trainer: pl.Trainer) -> int:
    """Return how many rows the run's :class:`History` holds; 0 without one.

    Args:
        trainer: the trainer of the run.
    """
    return next((logger.rows() for logger in trainer.loggers if isinstance(logger, History)), 0)
