"""W&B fails, and nothing else does; a run that goes on stays one run; what is made of a run's files."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import wandb
from tests.cli.wandb_file import read_all
from tests.cli.wandb_server import WandbServer
from tests.lit import fabricate
from tests.reports.fabricate_runs import write_pictures, write_run

from fss.cli import wandb_run
from fss.cli.loggers import build_loggers, recorders, wandb_id
from fss.cli.wandb_labels import Labels
from fss.cli.wandb_logger import GuardedWandbLogger
from fss.cli.wandb_media import CLASS_COLUMNS, base_identity, base_learner, class_table, legal, pictures
from fss.cli.wandb_recorder import WandbRecorder, spectra, spectrum_table
from fss.cli.wandb_run import LIMITS, finish, finishing, start
from fss.finetune.freeze import Freeze
from fss.finetune.svf import SVF
from fss.finetune.svf_residual import SVFResidual
from fss.lit.callbacks.backbone import BackboneFinetune
from fss.lit.callbacks.cost import CostMeter
from fss.reports.results import load_result

LABELS = Labels("group", "svf", ("a", "b"), {"fold": 0}, ())


class Broken:
    """W&B's run after its service has died."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(f"the service has gone: {name}")


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
    with caplog.at_level(logging.WARNING):
        start(tmp_path, True, {})
        start(tmp_path, True, {})
    assert [mode for mode, *_ in asked] == ["online", "offline", "offline"]
    assert all(first == LIMITS["init_timeout"] and last != LIMITS["finish_timeout"] for _, first, last in asked)
    assert not (tmp_path / "wandb/run-1-abc").exists()
    messages = [r.getMessage() for r in caplog.records]
    assert len(messages) == 2, "every run says where its log is"
    assert all("no route to host" in m and "wandb sync" in m for m in messages)


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


def test_a_continued_run_stays_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "own"))
    for _ in range(2):
        life(tmp_path / "run", logger(tmp_path / "run"), epochs=2)
        finish()
    wandb.teardown()  # waits until the files are closed
    first, second = read_all(tmp_path / "run")
    assert first.run.run_id == second.run.run_id == "abc123"
    assert first.run.resume
    assert second.run.resume, "W&B goes on with a run that it knows"
    assert first.column("train/loss_total") == second.column("train/loss_total")
    assert len(first.column("train/loss_total")) == 8
    assert (first.run.run_group, first.run.job_type, list(first.run.tags)) == ("group", "svf", ["a", "b"])
    assert first.exit_code == second.exit_code == 0


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


def test_disabled_means_absent(tmp_path: Path) -> None:
    node = {"csv": True, "tensorboard": False, "wandb": "disabled", "project": "fss"}
    made = build_loggers(node, tmp_path, "name", {})
    assert [type(one).__name__ for one in made] == ["History"]
    assert recorders(made, "name") == []
    assert not (tmp_path / "wandb_id").exists()


def test_ids_are_kept_for_continued_runs_only(tmp_path: Path) -> None:
    first = wandb_id(tmp_path, new=True)
    assert wandb_id(tmp_path, new=False) == first
    assert wandb_id(tmp_path, new=True) != first


def test_spectra_are_those_of_the_trained_values() -> None:
    counts = {}
    for name, strategy in (("svf", SVF((3, 4))), ("residual", SVFResidual((2,))), ("freeze", Freeze()),
                           ("vectors", SVF((4,), factors=("U", "V")))):  # fmt: skip
        module = fabricate.module()
        strategy.apply(module.model.backbone)
        counts[name] = {stage: len(layers) for stage, layers in spectra(module).items()}
    assert counts["svf"].keys() == {3, 4}
    assert counts["residual"].keys() == {2}
    assert counts["freeze"] == counts["vectors"] == {}, "no singular value trains"


def test_changes_are_relative_to_the_pretrained_values() -> None:
    before = {3: {"layer3.conv": np.array([4.0, 2.0, 1.0])}}
    table = spectrum_table(before, {3: {"layer3.conv": np.array([5.0, 2.0, 0.5])}})
    assert table.data == [["layer3.conv", 3, 3, pytest.approx(25.0), pytest.approx(25.0), pytest.approx(-50.0)]]


def test_the_table_of_classes(tmp_path: Path) -> None:
    result = load_result(write_run(tmp_path / "run", scores__per_class={"ring": 25.0, "star": None, "dot": 50.0}))
    head = (
        "index,class,query,supports,background_intersection,background_union,foreground_intersection,foreground_union"
    )
    rows = ["0,ring,a,b,1,2,1,4", "1,ring,a,b,1,2,1,4", "2,dot,a,b,1,2,1,1", "3,dot,a,b,1,2,0,1"]
    (tmp_path / "run/episodes.csv").write_text("\n".join([head, *rows]))
    table = class_table(result)
    assert table.columns == CLASS_COLUMNS
    ring, star, dot = table.data
    assert ring == ["ring", 25.0, 25.0, 25.0, 2], "equal episodes: no doubt"
    assert star == ["star", None, None, None, None]
    assert dot == ["dot", 50.0, 0.0, 100.0, 2]
    (tmp_path / "run/episodes.csv").unlink()
    assert class_table(result).data[0] == ["ring", 25.0, None, None, None]


def test_masks_name_what_is_ignored(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    shown = pictures(tmp_path / "pictures.npz")
    kept = np.load(tmp_path / "pictures.npz")
    assert (kept["truth"] == 255).any()
    assert len(shown["test/episodes"]) == len(shown["test/supports"]) == 4
    for i, image in enumerate(shown["test/episodes"]):
        assert image._masks.keys() == {"truth", "prediction"}
        labels = image._masks["truth"]._val["class_labels"]
        assert labels == {0: "background", 1: kept["class_name"][i], 255: "ignored"}


def test_a_base_learner_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"values")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/other.ckpt").write_bytes(b"values")
    (tmp_path / "c.ckpt").write_bytes(b"other values")
    identity = "f" * 64
    here, moved, other = (
        base_learner(base_identity(identity, tmp_path / path), {}) for path in ("a.ckpt", "b/other.ckpt", "c.ckpt")
    )
    assert (here.name, here.digest) == (moved.name, moved.digest)
    assert other.digest != here.digest


def test_names_of_artifacts() -> None:
    assert legal("tuned-baseline-resnet50 (1)/x:y") == "tuned-baseline-resnet50--1--x-y"
    assert len(legal("n" * 300)) == 128


def test_the_light_parts_import_no_wandb() -> None:
    code = (
        "import sys, fss.cli.main, fss.cli.wandb_labels, fss.cli.wandb_run, fss.cli.train\n"
        "print(json.dumps([m for m in ('wandb', 'wandb_workspaces', 'torch') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", f"import json\n{code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
