"""Measure the cost of a run: seconds, and memory kept for the backward pass."""

from __future__ import annotations

import time
from collections.abc import Sized
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from fss.lit.callbacks.snapshots import Snapshots


class CostMeter(pl.Callback):
    """Records training and test time and memory.

    Memory on a GPU is the allocator's peak; elsewhere it is the exact number of bytes, without parameters, that the
    first training step saves for its backward pass, which unlike the peak of the process depends on this run alone.

    Attributes:
        seconds: stage -> wall seconds of this process: of ``train`` those of steps, data loading included, without
            validation and writing of checkpoints; of ``test`` all.
        saved_bytes: bytes saved for backward by one training step.
        steps_per_epoch: optimiser steps of a full epoch, regardless of ``limit_train_batches``.
        tested: test episodes that this process has seen.
    """

    def __init__(self) -> None:
        self.seconds = {"train": 0.0, "test": 0.0}
        self.saved_bytes = 0
        self.steps_per_epoch: int | None = None
        self.tested = 0
        self._peaks = {"train": 0, "test": 0}  # bytes of the CUDA allocator; apart, because tests cache feature maps
        self._phase = "test"  # anything before training does not count as training
        self._laps: list[float] = []  # seconds between batch ends, including data loading
        self._lap: float | None = None  # when the present step began
        self._first = True  # step of an epoch, which waits for loader processes to start
        self._written = 0.0  # seconds spent on checkpoints when it began
        self._started = 0.0
        self._hooks: torch.autograd.graph.saved_tensors_hooks | None = None
        self._storages: dict[int, int] = {}

    def summary(self) -> dict[str, Any]:
        """Return the ``cost`` entry of the result file."""
        cuda = torch.cuda.is_available()
        self._take_peak()
        trained = self.seconds["train"] > 0
        peak = self._peaks["train" if trained else "test"] if cuda else self.saved_bytes
        return {
            "train_seconds": round(self.seconds["train"], 3) if trained else None,
            "test_seconds": round(self.seconds["test"], 3),
            "peak_memory_mb": round(peak / 2**20, 3),
            "memory_kind": "cuda" if cuda else "saved_for_backward",
            "saved_for_backward_mb": round(self.saved_bytes / 2**20, 3),
            "step_ms": round(1000 * median(self._laps), 3) if self._laps else None,
            "steps_per_epoch": self.steps_per_epoch,
            "test_episode_ms": round(1000 * self.seconds["test"] / self.tested, 3) if self.tested else None,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements so far, so that a resumed training reports its total time."""
        return {"train_seconds": self.seconds["train"], "saved_bytes": self.saved_bytes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements from before an interruption.

        Args:
            state_dict: state from the checkpoint.
        """
        self.seconds["train"] = float(state_dict["train_seconds"])
        self.saved_bytes = int(state_dict["saved_bytes"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the allocator's peak."""
        self._begin("train")
        loader = trainer.train_dataloader
        self.steps_per_epoch = len(loader) if isinstance(loader, Sized) else None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock, and count memory as test memory during validation."""
        self._pause(trainer)
        self._begin("test")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count memory as training memory again."""
        self._begin("train")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop counting even if the forward pass failed: the hooks are global and would outlive the run."""
        self._stop_counting()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._first = True
        self._start(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._pause(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the time since the end of the previous batch."""
        seconds = self._book(trainer)
        if not self._first:
            self._laps.append(seconds)
        self._first = False
        self._start(trainer)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the tested episodes, or the images of ordinary batches."""
        self.tested += len(batch)  # both kinds of batches know their length

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._begin("test")
        self._started = time.perf_counter()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self.seconds["test"] += time.perf_counter() - self._started

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock after a validation within an epoch; count the bytes that the first forward pass saves."""
        if self._lap is None:
            self._start(trainer)
        if self.saved_bytes or self._hooks is not None:
            return
        parameters = {p.untyped_storage().data_ptr() for p in pl_module.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                self._storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        self._hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
        self._hooks.__enter__()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Stop counting."""
        if self._hooks is not None:
            self.saved_bytes = sum(self._storages.values())
        self._stop_counting()

    def _start(self, trainer: pl.Trainer) -> None:
        self._lap, self._written = time.perf_counter(), _writing(trainer)

    def _book(self, trainer: pl.Trainer) -> float:
        """Add the time since the start, without checkpoints, to that of the training; return it."""
        if self._lap is None:
            return 0.0
        seconds = time.perf_counter() - self._lap - (_writing(trainer) - self._written)
        self.seconds["train"] += seconds
        return seconds

    def _pause(self, trainer: pl.Trainer) -> None:
        """Stop the clock; a GPU may still be working on the last steps."""
        if torch.cuda.is_available() and self._lap is not None:
            torch.cuda.synchronize()
            self._book(trainer)
        self._lap = None

    def _stop_counting(self) -> None:
        if self._hooks is not None:
            self._hooks.__exit__(None, None, None)
            self._hooks = None
        self._storages.clear()

    def _begin(self, phase: str) -> None:
        """Assign the allocator's peak to the phase that ends, and begin another."""
        self._take_peak()
        self._phase = phase

    def _take_peak(self) -> None:
        if torch.cuda.is_available():
            self._peaks[self._phase] = max(self._peaks[self._phase], torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()


def _writing(trainer: pl.Trainer) -> float:
    """Return the seconds that went into snapshots so far."""
    return sum(c.seconds for c in trainer.checkpoint_callbacks if isinstance(c, Snapshots))
