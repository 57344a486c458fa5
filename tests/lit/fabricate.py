"""Episodes in memory, and the smallest module that trains on them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from tests.methods.fakes import episode, tiny
from torch.utils.data import DataLoader

from fss.data.episodes.lists import EpisodeList
from fss.data.episodes.stateless import Draw
from fss.lit.callbacks.cost import CostMeter
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.result import ResultWriter, RunFacts
from fss.lit.episodic import EpisodicModule
from fss.lit.optim import Recipe
from fss.methods.baseline import Baseline
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode

CLASSES = ["ring", "star"]


class Episodes(pl.LightningDataModule):
    """Four batches of two episodes; with labels at two original sizes in the test."""

    test_episodes_hash = "0" * 64

    def __init__(self, batches: int = 4) -> None:
        super().__init__()
        self.batches = batches
        drawn = tuple(Draw(1 + i % 2, f"q{i}", (f"s{i}",)) for i in range(2 * batches))
        self.streams = SimpleNamespace(test=EpisodeList("x", 0, 1, "test", 0, "by hand", drawn))

    def make(self, full: bool) -> list[Episode]:
        made = []
        for n in range(self.batches):
            batch = episode(2, 1, seed=n)
            batch.index = torch.arange(2) + 2 * n
            if full:
                batch.full_labels = [batch.query_label[0][:30], batch.query_label[1][:, :20]]
            made.append(batch)
        return made

    def _loader(self, full: bool) -> DataLoader[Any]:
        return DataLoader(self.make(full), batch_size=None)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(False)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(True)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(True)


def model(seed: int = 0) -> FewShotSegmenter:
    backbone = tiny(seed=seed)
    backbone.norm_mode = "train"  # as built; the strategy changes it
    return FewShotSegmenter(backbone, Baseline(backbone.channels, width=4))


def recipe(**changes: Any) -> Recipe:
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2)
    return Recipe(**{"optimizer": optimizer, **changes})


def module(**changes: Any) -> EpisodicModule:
    return EpisodicModule(model(), recipe(**changes), CLASSES, CLASSES, CLASSES, card={"config": {"fold": 0}})


def trainer(folder: Path, *callbacks: pl.Callback, epochs: int = 1, **more: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        default_root_dir=str(folder),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=more.pop("enable_checkpointing", False),
        num_sanity_val_steps=0,
        **more,
    )


def writer(folder: Path, finetune: BackboneFinetune, cost: CostMeter) -> ResultWriter:
    key = dict.fromkeys(("data", "method", "backbone", "finetune", "recipe", "experiment"), "x")
    facts = RunFacts(
        identity="f" * 64,
        key={**key, "fold": 0, "shot": 1, "seed": 3},
        selection={"rule": "last", "note": "nothing was selected"},
        config={"fold": 0, "shot": 1, "data": {"test_shot": 2}},
        versions={"torch": torch.__version__},
        commit=None,
        notes=("made up",),
    )
    return ResultWriter(folder, facts, finetune, cost)
