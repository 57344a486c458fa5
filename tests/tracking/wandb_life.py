"""A whole life of a small run that logs to W&B: training and test, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from tests.lit import fabricate

from fss.finetune.svf import SVF
from fss.lit.callbacks.cost import CostMeter
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.tracking.labels import Labels
from fss.tracking.recorder import WandbRecorder
from fss.tracking.wandb_logger import GuardedWandbLogger

LABELS = Labels("group", "svf", ("a", "b"), {"fold": 0}, ())


def logger(folder: Path, online: bool = False) -> GuardedWandbLogger:
    return GuardedWandbLogger(folder, "name", "fss", "abc123", LABELS, online)


def life(folder: Path, *loggers: GuardedWandbLogger, epochs: int = 1, more: Sequence[pl.Callback] = ()) -> torch.Tensor:
    """Train and test, and return the weights."""
    torch.manual_seed(0)
    module, finetune, cost = fabricate.module(), BackboneFinetune(SVF((2, 3, 4))), CostMeter()
    recording = [WandbRecorder(one, "name") for one in loggers]
    folder.mkdir(parents=True, exist_ok=True)
    callbacks = [finetune, cost, fabricate.writer(folder, finetune, cost), *recording, *more]
    trainer = fabricate.trainer(folder, *callbacks, epochs=epochs, log_every_n_steps=1)
    trainer.loggers = list(loggers)
    trainer.fit(module, datamodule=fabricate.Episodes())
    trainer.test(module, datamodule=fabricate.Episodes(), verbose=False)
    return torch.cat([p.detach().flatten() for p in module.parameters()])
