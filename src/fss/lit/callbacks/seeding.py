"""Random numbers of a training step as a function of (seed, step)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class StepSeed(pl.Callback):
    """Seeds torch before every training step, so that dropout is the same after an interruption as without one.

    Otherwise every checkpoint would have to store the generator state of every process. All processes get the same
    seed, see :class:`fss.nn.dropout.SharedDropout2d`.
    """

    def __init__(self, seed: int) -> None:
        """Store the seed.

        Args:
            seed: seed of the run, >= 0.
        """
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step."""
        key = np.random.SeedSequence((self.seed, trainer.global_step))
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))
