"""Progress for people who read a log: a line now and then with step, loss, score, speed and time left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

log = logging.getLogger(__name__)

SECONDS = 30.0
"""Time between two lines; the first one comes earlier, so that one sees soon that the training moves."""
_FIRST = 5.0


class ProgressLog(pl.Callback):
    """Logs a line every half minute and at the end of every validation.

    Where a progress bar is on the terminal the lines go to log files only.

    Args:
        seconds: between two lines.
        clock: returns seconds.
    """

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._begun = self._next = self._paused = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._begun, self._first_step = self._clock(), trainer.global_step
        self._next = self._begun + min(_FIRST, self.seconds)
        self._paused = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log a line if it is time."""
        if trainer.is_global_zero and self._clock() >= self._next:
            self._next = self._clock() + self.seconds
            _emit(trainer, self._line(trainer))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of the steps."""
        self._paused -= self._clock()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on, and log the score."""
        self._paused += self._clock()
        if trainer.is_global_zero and trainer.state.fn == "fit":
            _emit(trainer, self._line(trainer))

    def _line(self, trainer: pl.Trainer) -> str:
        steps, total = trainer.global_step, trainer.estimated_stepping_batches
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        words = [f"epoch {trainer.current_epoch + 1}{epochs}", f"step {steps}/{total:g}"]
        scores = trainer.callback_metrics
        for key, name in (("train/loss_total", "loss"), ("val/miou", "validation mIoU")):
            value = scores.get(key, scores.get(f"{key}_step"))
            if value is not None:
                words.append(f"{name} {float(value):.4g}")
        took = self._clock() - self._begun - max(self._paused, 0.0)
        done = steps - self._first_step
        if done > 0 and took > 0:
            words += [f"{done / took:.2g} steps/s", f"{_duration((total - steps) * took / done)} of steps left"]
        return ", ".join(words)


def _emit(trainer: pl.Trainer, line: str) -> None:
    """Write a line to the log, to its files alone where a progress bar would be torn apart."""
    if trainer.progress_bar_callback is None or not sys.stderr.isatty():
        log.info("%s", line)
        return
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, line, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(minutes, 0)} min"
