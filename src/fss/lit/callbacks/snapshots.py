"""Checkpoints to resume from: at epoch ends, at time intervals, and before a signal ends the process."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import distributed

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C, termination of a job, and SLURM's early warning (``--signal=USR1@300``)."""

_DUE = 1  # requests a snapshot without a stop; below every signal number used here


class Stopped(Exception):  # noqa: N818  # not an error: the training can be resumed
    """A signal ended the training after a checkpoint was written.

    Attributes:
        signum: number of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Snapshots(Checkpoint):
    """Keeps ``last.ckpt``, from which a training resumes bit for bit, even in the middle of an epoch.

    The signal handler only records the signal. The checkpoint is written before the next batch, by all processes
    together, and then :class:`Stopped` is raised. A second Ctrl-C stops immediately.

    Args:
        path: the file.
        minutes: longest time between two snapshots; 0: only at epoch ends and on signals.
        rows: returns the number of rows logged so far, stored with the snapshot.
    """

    def __init__(self, path: Path, minutes: float = 10.0, rows: Callable[[pl.Trainer], int] | None = None) -> None:
        self.path = path
        self.minutes = minutes
        self.rows = rows or (lambda trainer: 0)
        self.seconds = 0.0  # spent on writing
        self._batch = 0  # batches of the epoch that were trained on
        self._signal = 0
        self._written = time.monotonic()
        self._step = 0
        self._finished = False
        self._polls = 0
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers, and tell the sampler where the checkpoint ended."""
        self._written, self._step = time.monotonic(), trainer.global_step
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._record_signal) for number in heard}
        sampler: Any = getattr(trainer.train_dataloader, "sampler", None)
        if self._batch and hasattr(sampler, "skip"):
            sampler.skip = self._batch

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write a snapshot if one is due, and stop on a signal; the previous batch is fully logged by now."""
        self._batch = batch_idx
        due = _DUE if batch_idx == 0 and trainer.global_step > self._step else 0
        self._fulfil(trainer, max(self._strongest_request(trainer), due))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the number of batches that every process has, so that all of them synchronise equally often."""
        if trainer.state.fn == "fit":
            batches = torch.tensor(int(sum(trainer.num_val_batches)), device=trainer.strategy.root_device)
            if trainer.world_size > 1:
                distributed.all_reduce(batches, distributed.ReduceOp.MIN)
            self._polls = int(batches)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop on a signal; the validation will be repeated from its start."""
        if trainer.state.fn == "fit" and batch_idx < self._polls:
            request = self._strongest_request(trainer)
            if request > _DUE:
                self._fulfil(trainer, request)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the position in the epoch and in the log."""
        between = trainer.validating or self._finished  # no batch of this epoch is left
        checkpoint["fss_position"] = {"batch": 0 if between else self._batch, "rows": self.rows(trainer)}
        if trainer.validating:
            _before_validation(checkpoint)
        elif not self._finished:
            _before_batch(checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the position."""
        self._batch = int(checkpoint.get("fss_position", {}).get("batch", 0))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the previous signal handlers."""
        self._restore_handlers()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the snapshot of the finished training; from now on a signal may end the process immediately."""
        self._finished = True
        self._fulfil(trainer, max(self._strongest_request(trainer), _DUE))
        self._restore_handlers()

    def _record_signal(self, signum: int, frame: Any) -> None:
        if self._signal and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = max(self._signal, signum)
        log.warning("%s: stopping after this batch, with a checkpoint.", signal.Signals(signum).name)

    def _strongest_request(self, trainer: pl.Trainer) -> int:
        """Return the strongest request of all processes: 0, ``_DUE`` or a signal number."""
        due = trainer.is_global_zero and 0 < 60 * self.minutes <= time.monotonic() - self._written
        request = self._signal or (_DUE if due else 0)
        if trainer.world_size == 1:
            return request
        shared = torch.tensor(request, device=trainer.strategy.root_device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return int(shared)

    def _fulfil(self, trainer: pl.Trainer, request: int) -> None:
        if request:
            begun = time.monotonic()
            trainer.save_checkpoint(self.path, weights_only=False)
            self.seconds += time.monotonic() - begun
            self._written, self._step = time.monotonic(), trainer.global_step
        if request > _DUE:
            raise Stopped(request)

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def _before_validation(checkpoint: dict[str, Any]) -> None:
    """Mark the validation as begun with nothing scored: Lightning then repeats it and counts every episode."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    for part in ("total", "current"):
        progress[part] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    progress["is_last_batch"] = False


def _before_batch(checkpoint: dict[str, Any]) -> None:
    """Correct the loop state, because Lightning assumes that checkpoints are written at the end of a batch."""
    loop = checkpoint["loops"]["fit_loop"]
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # Lightning adds one on resuming
    loop["epoch_loop.batch_progress"]["is_last_batch"] = False
