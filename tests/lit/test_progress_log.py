"""A log file shows that a training moves: lines by the clock, with what one wants to know."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fss.lit.callbacks.progress_log import ProgressLog


class Trainer:
    """What the callback reads of Lightning's trainer."""

    is_global_zero = True
    global_step, estimated_stepping_batches, max_epochs, current_epoch = 0, 1000, 5, 0
    progress_bar_callback: Any = None
    callback_metrics: dict[str, torch.Tensor]

    def __init__(self) -> None:
        self.callback_metrics = {}
        self.state = type("State", (), {"fn": "fit"})()


def test_lines_come_by_the_clock(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trainer, now = Trainer(), [0.0]
    callback = ProgressLog(seconds=30, clock=lambda: now[0])
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    trainer.callback_metrics = {"train/loss_total": torch.tensor(0.5)}
    for step in range(1, 101):  # one step a second
        now[0], trainer.global_step = float(step), step
        callback.on_train_batch_end(trainer, None, None, None, step)  # type: ignore[arg-type]
    lines = [record.message for record in caplog.records]
    assert len(lines) == 4, "after 5, 35, 65 and 95 seconds"
    assert lines[-1] == "epoch 1/5, step 95/1000, loss 0.5, 1 steps/s, 15 min of steps left"


def test_validation_does_not_count_as_time_of_steps(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trainer, now = Trainer(), [0.0]
    callback = ProgressLog(clock=lambda: now[0])
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    now[0], trainer.global_step = 10.0, 20
    callback.on_validation_start(trainer, None)  # type: ignore[arg-type]
    now[0], trainer.callback_metrics = 1000.0, {"val/miou": torch.tensor(41.2)}
    callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert caplog.records[-1].message == "epoch 1/5, step 20/1000, validation mIoU 41.2, 2 steps/s, 8 min of steps left"


def test_beside_a_progress_bar_only_files_get_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    trainer = Trainer()
    trainer.progress_bar_callback = object()
    handler, root = logging.FileHandler(tmp_path / "train.log"), logging.getLogger()
    console = logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    root.addHandler(console)
    try:
        callback = ProgressLog()
        callback.on_train_start(trainer, None)  # type: ignore[arg-type]
        callback.on_validation_start(trainer, None)  # type: ignore[arg-type]
        callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
    finally:
        root.removeHandler(handler)
        root.removeHandler(console)
        handler.close()
    assert "epoch 1/5" in (tmp_path / "train.log").read_text()
    assert "epoch 1/5" not in capsys.readouterr().err
