"""Training time is that of the steps; by a clock that only moves when it is told to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
from tests.lit.fabricate import Episodes, module, trainer

from fss.finetune.freeze import Freeze
from fss.lit.callbacks.best_checkpoint import BestCheckpoint
from fss.lit.callbacks.cost import CostMeter
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.snapshots import Snapshots

STEP, VALIDATION, WRITING, EPOCHS, BATCHES = 0.25, 10, 1000, 2, 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    now = {"s": 0.0}
    stopped = SimpleNamespace(perf_counter=lambda: now["s"], monotonic=lambda: now["s"])
    monkeypatch.setattr("fss.lit.callbacks.cost.time", stopped)
    monkeypatch.setattr("fss.lit.callbacks.snapshots.time", stopped)
    write = pl.Trainer.save_checkpoint

    def slow(self: pl.Trainer, *given: Any, **more: Any) -> None:
        now["s"] += WRITING
        write(self, *given, **more)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", slow)
    return now


@pytest.mark.parametrize("limits", [{}, {"val_check_interval": 2}, {"limit_val_batches": 0}], ids=str)
def test_validation_and_checkpoints_are_no_training_time(
    limits: dict[str, Any], clock: dict[str, float], tmp_path: Path
) -> None:
    net, cost = module(), CostMeter()
    plain, validate = net.training_step, net.validation_step

    def training_step(episode: Any, batch_idx: int) -> Any:
        clock["s"] += STEP
        return plain(episode, batch_idx)

    def validation_step(episode: Any, batch_idx: int) -> None:
        clock["s"] += VALIDATION
        validate(episode, batch_idx)

    net.training_step = training_step  # type: ignore[method-assign]
    net.validation_step = validation_step  # type: ignore[method-assign]
    kept = [BestCheckpoint(tmp_path), Snapshots(tmp_path / "last.ckpt", minutes=1)]
    run = trainer(tmp_path, BackboneFinetune(Freeze()), cost, *kept, epochs=EPOCHS, enable_checkpointing=True, **limits)
    run.fit(net, datamodule=Episodes(BATCHES))
    assert clock["s"] >= EPOCHS * WRITING + (0 if "limit_val_batches" in limits else EPOCHS * BATCHES * VALIDATION)
    found = cost.summary()
    assert found["train_seconds"] == EPOCHS * BATCHES * STEP
    assert found["step_ms"] == 1000 * STEP
    assert cost.state_dict()["train_seconds"] == EPOCHS * BATCHES * STEP
    again = CostMeter()
    again.load_state_dict(cost.state_dict())
    assert again.seconds["train"] == EPOCHS * BATCHES * STEP
