"""A signal at any place of a training leads to a checkpoint from which it continues bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.lit.fabricate import module, trainer
from tests.methods.fakes import episode
from torch.utils.data import DataLoader, Dataset

from fss.data.epoch_sampler import EpisodeIndexSampler
from fss.data.lazy_loader import EpisodeLoader
from fss.errors import FssError
from fss.finetune.svf import SVF
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.seeding import StepSeed
from fss.lit.callbacks.snapshots import Snapshots, Stopped
from fss.lit.checkpoint_io import AtomicCheckpointIO
from fss.lit.history import History, logged_rows
from fss.types import Episode

EPOCHS, BATCHES, VAL = 3, 4, 3


class Drawn(Dataset[Episode]):
    """One episode per (epoch, i)."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.asked: list[tuple[int, int]] = []

    def __getitem__(self, key: tuple[int, int]) -> Episode:
        self.asked.append(key)
        made = episode(1, 1, seed=100 * key[0] + key[1])
        made.index = torch.tensor([key[1]])
        if self.full:
            made.full_labels = [made.query_label[0]]
        return made


class Stream(pl.LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.train, self.val = Drawn(False), Drawn(True)

    def train_dataloader(self) -> DataLoader[Any]:
        sampler = EpisodeIndexSampler(BATCHES, 1, training=True)
        return EpisodeLoader(self.train, batch_size=None, sampler=sampler)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        sampler = EpisodeIndexSampler(VAL, 1)
        return EpisodeLoader(self.val, batch_size=None, sampler=sampler)  # type: ignore[arg-type]


class Signal(pl.Callback):
    """Sends a signal to this process at one place of the training."""

    def __init__(self, place: str, epoch: int, batch: int, signum: int, times: int = 1) -> None:
        self.place, self.epoch, self.batch, self.signum, self.times = place, epoch, batch, signum, times

    def _send(self, trainer: pl.Trainer, place: str, batch: int) -> None:
        if (place, trainer.current_epoch, batch) == (self.place, self.epoch, self.batch):
            for _ in range(self.times):
                os.kill(os.getpid(), self.signum)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._send(trainer, "train", batch_idx)

    def on_validation_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        self._send(trainer, "val", batch_idx)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self._send(trainer, "end", 0)


def fit(folder: Path, *extra: pl.Callback, validate: bool = True) -> tuple[Any, Stream, pl.Trainer]:
    pl.seed_everything(1, verbose=False)
    net, data, last = module(), Stream(), folder / "last.ckpt"
    rows = int(torch.load(last, weights_only=True)["fss_position"]["rows"]) if last.is_file() else 0
    run = trainer(
        folder,
        BackboneFinetune(SVF()),
        StepSeed(1),
        *extra,
        Snapshots(last, 0, logged_rows),
        epochs=EPOCHS,
        enable_checkpointing=True,
        plugins=[AtomicCheckpointIO()],
        limit_val_batches=1.0 if validate else 0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    run.loggers = [History(folder, rows)]
    run.fit(net, datamodule=data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    return net, data, run


@pytest.fixture(scope="module", params=[True, False], ids=["validated", "not validated"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Any, str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    net, data, run = fit(folder, validate=request.param)
    assert run.global_step == EPOCHS * BATCHES
    return request.param, net.state_dict(), (folder / "csv/metrics.csv").read_text(), data.train.asked


@pytest.mark.parametrize(
    ("place", "epoch", "batch"),
    [
        ("train", 0, 0), ("train", 0, 2), ("train", 1, 1), ("train", 1, BATCHES - 1), ("train", 2, BATCHES - 2),
        ("val", 0, 0), ("val", 1, 1), ("val", 1, VAL - 1), ("val", 2, VAL - 1), ("end", 0, 0), ("end", 2, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_stop_and_continue(whole: Any, tmp_path: Path, place: str, epoch: int, batch: int, signum: int) -> None:
    validate, weights, log, asked = whole
    if place == "val" and not validate:
        pytest.skip("there is no validation to stop in")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as stop:
        fit(tmp_path, Signal(place, epoch, batch, signum), validate=validate)
    assert stop.value.signum == signum
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before, "handlers are given back"
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    done = content["global_step"]
    assert done == epoch * BATCHES + (batch + 1 if place == "train" else BATCHES), "no step is lost"
    net, data, run = fit(tmp_path, validate=validate)
    assert run.global_step == EPOCHS * BATCHES
    assert data.train.asked == asked[done:], "no episode is trained on twice"
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert (tmp_path / "csv/metrics.csv").read_text() == log


def test_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path, Signal("train", 1, 1, signal.SIGINT, times=2))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == BATCHES, "of the end of the epoch"


def test_snapshots_by_the_clock(tmp_path: Path) -> None:
    written: list[int] = []

    class Watch(pl.Callback):
        def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: Any) -> None:
            written.append(checkpoint["global_step"])

    pl.seed_everything(1, verbose=False)
    run = trainer(
        tmp_path, BackboneFinetune(SVF()), Watch(), Snapshots(tmp_path / "last.ckpt", 1e-9), epochs=1,
        enable_checkpointing=True, plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    run.fit(module(), datamodule=Stream())
    assert written == [0, 1, 2, 3, BATCHES]


def test_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    target.write_bytes(b"earlier")
    with pytest.raises(FssError, match="Cannot write the checkpoint"):
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(3)}, target / "below a file" / "x.ckpt")
    assert target.read_bytes() == b"earlier"


def test_dropout_is_a_function_of_the_step() -> None:
    class At:
        def __init__(self, step: int) -> None:
            self.global_step = step

    def drawn(seed: int, step: int) -> torch.Tensor:
        StepSeed(seed).on_train_batch_start(At(step), None, None, 0)  # type: ignore[arg-type]
        return torch.rand(4)

    assert torch.equal(drawn(1, 5), drawn(1, 5))
    assert not torch.equal(drawn(1, 5), drawn(1, 6))
    assert not torch.equal(drawn(1, 5), drawn(2, 5))
