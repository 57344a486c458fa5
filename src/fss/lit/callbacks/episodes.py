"""Write the images and the pixel counts of every test episode."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytorch_lightning as pl

from fss.files import atomic
from fss.lit.episodic import EpisodicModule

COLUMNS = (
    "index", "class", "query", "supports", "background_intersection", "background_union", "foreground_intersection",
    "foreground_union",
)  # fmt: skip


class EpisodeRecorder(pl.Callback):
    """Writes ``episodes.csv``: one row per test episode with its images and its pixel counts.

    All scores can be recomputed from it, and two runs can be compared episode by episode.

    Args:
        folder: receives the file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "episodes.csv"

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file, in one process."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, EpisodicModule)
        draws = trainer.datamodule.streams.test  # type: ignore[attr-defined]
        names = pl_module.class_names["test"]
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for index, position, *counts in pl_module.test_rows.tolist():
            draw = draws.draw(0, index)
            table.writerow([index, names[position], draw.query, " ".join(draw.supports), *counts])
        with atomic(self.path) as file:
            file.write(text.getvalue().encode())
