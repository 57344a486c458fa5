"""W&B is not there, goes away, refuses, or dies: the training ends as it would without it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import wandb
from tests.tracking.wandb_file import read_all
from tests.tracking.wandb_life import life, logger
from tests.tracking.wandb_server import WandbServer

from fss.results import load_result
from fss.tracking import wandb_run
from fss.tracking.wandb_run import LIMITS, finish, finishing, start


class Broken:
    """W&B's run after its service has died."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(f"the service has gone: {name}")


def test_a_failure_in_the_middle_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = life(tmp_path / "plain")
    broken = logger(tmp_path / "broken")
    broken._experiment = Broken()
    with caplog.at_level(logging.WARNING):
        weights = life(tmp_path / "broken", broken)
    assert torch.equal(weights, plain)
    assert load_result(tmp_path / "broken/result.json").scores.miou >= 0
    told = [r.getMessage() for r in caplog.records if "W&B failed" in r.getMessage()]
    assert len(told) == 1, "once, not at every step"
    assert "the service has gone" in told[0]
    assert "goes on without it" in told[0]


def test_a_start_that_fails_altogether(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("no room for the log")

    monkeypatch.setattr("wandb.init", fail)
    one = logger(tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        life(tmp_path / "run", one)
    told = [r.getMessage() for r in caplog.records if "W&B failed" in r.getMessage()]
    assert len(told) == 1
    assert "no room for the log" in told[0]
    assert (tmp_path / "run/result.json").is_file()


def test_a_sweep_waits_once_for_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Run:
        dir = str(tmp_path / "wandb/offline-run-1/files")

    asked = []

    def init(mode: str, settings: Any, **more: Any) -> Run:
        asked.append((mode, settings.init_timeout, settings.finish_timeout))
        if mode == "online":
            (tmp_path / "wandb/run-1-abc").mkdir(parents=True)
            raise OSError("no route to host")
        return Run()

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("wandb.teardown", lambda code: None)
    monkeypatch.setattr(wandb_run, "_refused", None)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "7")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with caplog.at_level(logging.WARNING):
        start(tmp_path, True, {})
        start(tmp_path, True, {})
    assert [mode for mode, *_ in asked] == ["online", "offline", "offline"]
    assert all(first == LIMITS["init_timeout"] and last != LIMITS["finish_timeout"] for _, first, last in asked)
    assert not (tmp_path / "wandb/run-1-abc").exists()
    messages = [r.getMessage() for r in caplog.records]
    assert len(messages) == 2, "every run says where its log is"
    assert all("no route to host" in m and "wandb sync" in m for m in messages)


def test_nobody_is_asked_for_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a terminal W&B would ask and wait for ever."""
    modes = []

    def init(mode: str, **_: Any) -> Any:
        modes.append(mode)
        return SimpleNamespace(dir=str(tmp_path / "wandb/offline-run-1/files"))

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr(wandb_run, "_refused", None)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "own"))
    with caplog.at_level(logging.WARNING):
        start(tmp_path, True, {})
    assert modes == ["offline"]
    assert "no key is set (wandb login)" in caplog.text


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    wandb.teardown()  # its service keeps the settings that it was started with
    made = WandbServer()
    values = {"BASE_URL": made.url, "API_KEY": "a" * 40, "SILENT": "true", "FINISH_TIMEOUT": "2", "INIT_TIMEOUT": "10"}
    for name, value in {**values, "DATA_DIR": str(tmp_path / "own")}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setattr(wandb_run, "_refused", None)
    yield made
    finish()
    wandb.teardown()
    made.close()


class Away(pl.Callback):
    """Takes the server away after the first epoch."""

    def __init__(self, server: WandbServer) -> None:
        self.server = server

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self.server.close()


@pytest.mark.slow
def test_a_server_that_goes_away(tmp_path: Path, server: WandbServer, caplog: pytest.LogCaptureFixture) -> None:
    plain = life(tmp_path / "plain", epochs=3)
    with caplog.at_level(logging.WARNING, "fss"):
        weights = life(tmp_path / "run", logger(tmp_path / "run", online=True), epochs=3, more=[Away(server)])
        finish()
    wandb.teardown()
    assert torch.equal(weights, plain)
    assert (tmp_path / "run/result.json").is_file()
    begun = server.runs[0]
    assert (begun["name"], begun["groupName"], begun["jobType"], begun["tags"]) == (
        "abc123",
        "group",
        "svf",
        ["a", "b"],
    )
    (file,) = read_all(tmp_path / "run")
    assert len(file.column("train/loss_total")) == 12, "the file is whole: wandb sync uploads it"
    assert file.summary["trained_values"] > 0
    assert len([r for r in caplog.records if "W&B failed" in r.getMessage()]) == 1


class Killer(pl.Callback):
    """Kills W&B's own process after the first epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            for path in Path("/proc").glob("[0-9]*/stat"):
                name, fields = path.read_text().rsplit(")", 1)
                if "(wandb-core" in name and int(fields.split()[1]) == os.getpid():
                    os.kill(int(path.parent.name), signal.SIGKILL)


@pytest.mark.slow
def test_a_service_that_dies_is_replaced_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "own"))
    with caplog.at_level(logging.WARNING, "fss"):
        life(tmp_path / "first", logger(tmp_path / "first"), epochs=3, more=[Killer()])
        finish(0)
        assert len([r for r in caplog.records if "W&B failed" in r.getMessage()]) == 1
        caplog.clear()
        life(tmp_path / "second", logger(tmp_path / "second"), epochs=3)
        finish()
    wandb.teardown()
    assert not [r for r in caplog.records if "W&B" in r.getMessage()]
    (file,) = read_all(tmp_path / "second")
    assert len(file.column("train/loss_total")) == 12
    assert file.exit_code == 0
    assert (tmp_path / "first/result.json").is_file()


@pytest.mark.slow
def test_a_key_that_is_refused(tmp_path: Path, server: WandbServer, caplog: pytest.LogCaptureFixture) -> None:
    server.status = 401
    with caplog.at_level(logging.WARNING, "fss"):
        life(tmp_path / "run", logger(tmp_path / "run", online=True))
        finish()
    wandb.teardown()
    assert (tmp_path / "run/result.json").is_file()
    (file,) = read_all(tmp_path / "run")
    assert "offline-run-" in str(file.folder)
    assert file.exit_code == 0
    (told,) = [r.getMessage() for r in caplog.records if "W&B" in r.getMessage()]
    assert "wandb login --relogin" in told


def test_a_run_that_fails_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "own"))

    def fail() -> None:
        with finishing():
            logger(tmp_path).log_metrics({"train/loss_total": 1.0}, 0)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    wandb.teardown()
    (file,) = read_all(tmp_path)
    assert file.exit_code == 1
    assert file.column("train/loss_total") == [1.0]
