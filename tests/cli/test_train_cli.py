"""The programs from end to end on drawn images, and what they say when asked wrongly."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import fss
from fss.config.source import build_source
from fss.data.shapes.write import write_shapes
from fss.finetune.layers.tuned import TunedLayer
from fss.metrics.geometry import at_label_size
from fss.model.checkpoint import read_checkpoint
from fss.results import load_result
from fss.runs.build import build_data
from fss.types import Episode, InputSpec

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    "data=shapes",
    "backbone=resnet18",
    "backbone.width=8",
    "backbone.weights=none",
    "method.width=8",
    "finetune=svf",
    "debug=one_batch",
    "logger=csv",
    "workers=0",
)


@dataclass
class Done:
    code: int
    out: str
    err: str
    seconds: float


@dataclass
class Run:
    """A working directory with a data set and one finished run."""

    home: Path
    done: Done
    folder: Path


def call(home: Path, program: str, *arguments: str, python: tuple[str, ...] = ()) -> Done:
    environment = {
        **os.environ,
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "FSS_CACHE": str(home / "cache"),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, *python, str(ROOT / program), *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - start)


def train(home: Path, *more: str) -> Done:
    return call(home, "train.py", *OPTIONS, f"data.root={home / 'shapes'}", *more)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("e2e")
    write_shapes(home / "shapes", 0, train=120, val=120, pretrain_per_class=1, workers=1)
    done = train(home)
    assert done.code == 0, done.err
    (result,) = home.glob("multirun/*/*/result.json")
    return Run(home, done, result.parent)


def test_everything_of_a_run_is_there(run: Run) -> None:
    assert run.folder.parent == run.home / "multirun" / "debug"
    assert re.fullmatch(r"baseline-resnet18-svf-shapes0-1shot-s321-[0-9a-f]{6}", run.folder.name)
    for name in ("tuned.pt", "previews.png", "previews.npz", "csv/metrics.csv", "checkpoints/best.ckpt"):
        assert (run.folder / name).stat().st_size > 0, name
    assert (run.folder / "tuned.pt").stat().st_size < 20_000
    result = load_result(run.folder / "result.json")
    assert (result.key.method, result.key.finetune, result.key.shot) == ("baseline", "svf", 1)
    assert result.episodes.count == 4
    assert result.selection.rule == "novel"
    assert result.selection.validation_miou == pytest.approx(result.scores.miou), "the same episodes"
    assert result.parameters.backbone_trainable == 504  # ranks of stages 2 to 4 at width 8
    assert result.parameters.backbone_total == 176_712
    assert len(result.scores.per_class) == 5
    assert result.commit is None or re.match("[0-9a-f]{40}", result.commit)
    assert result.config["backbone"]["width"] == 8
    assert result.cost.train_seconds
    assert "svf" in run.done.out
    assert "Traceback" not in run.done.err


def test_the_same_command_is_skipped(run: Run) -> None:
    before = (run.folder / "result.json").stat().st_mtime_ns
    done = train(run.home)
    assert done.code == 0
    assert "Already finished" in done.out + done.err
    assert (run.folder / "result.json").stat().st_mtime_ns == before
    assert len(list(run.home.glob("multirun/*/*"))) == 1


def test_loaded_model_reproduces_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and images of the run's own test follow from the checkpoint alone."""
    monkeypatch.setenv("FSS_CACHE", str(run.home / "cache"))
    path = run.folder / "checkpoints" / "best.ckpt"
    model = fss.load(path)
    assert not model.training
    merged = fss.load(path, merge=True)
    assert not [m for m in merged.modules() if isinstance(m, TunedLayer)]
    config = read_checkpoint(path).config
    data = build_data(config, build_source(config["data"]), InputSpec())
    data.setup("test")
    images = np.load(run.folder / "previews.npz")
    losses = []
    for episode in data.test_dataloader():
        with torch.no_grad():
            logits = model(episode.query, episode.support_images, episode.support_labels)
            plain = merged(episode.query, episode.support_images, episode.support_labels)
        assert logits.shape == (1, 2, 129, 129)
        assert float((logits - plain).abs().max()) < 1e-5 * max(1.0, float(logits.abs().max()))
        square, target = at_label_size(logits[0], episode.full_labels[0])
        losses.append(float(model.head.criterion(square[None], target[None])))
        (row,) = np.flatnonzero(images["index"] == int(episode.index[0]))
        assert np.array_equal(images["prediction"][row], logits[0].argmax(0).numpy())
    assert len(losses) == 4
    with (run.folder / "csv" / "metrics.csv").open() as file:
        (logged,) = [r["test/loss"] for r in csv.DictReader(file) if r["test/loss"]]
    assert np.mean(losses) == pytest.approx(float(logged), abs=1e-5)


def test_tuned_values_are_those_of_the_checkpoint(run: Run) -> None:
    values = torch.load(run.folder / "tuned.pt", weights_only=True)["values"]
    state = read_checkpoint(run.folder / "checkpoints" / "best.ckpt").state
    assert sum(v.numel() for v in values.values()) == 504
    assert all(torch.equal(v, state[f"backbone.{n}"]) for n, v in values.items())


def test_eval_with_another_shot(run: Run) -> None:
    before = (run.folder / "result.json").read_bytes()
    done = call(run.home, "eval.py", f"ckpt={run.folder / 'checkpoints' / 'best.ckpt'}", "shot=2")
    assert done.code == 0, done.err
    (path,) = run.folder.glob("eval-2shot-shapes0-*/result.json")
    result = load_result(path)
    trained = load_result(run.folder / "result.json")
    assert (result.key.shot, trained.key.shot) == (1, 1)  # both are runs trained with one support
    assert result.key.test.startswith("2shot ")
    assert result.cost.train_seconds is None, "tables leave tests of a checkpoint out by this"
    assert result.identity != trained.identity
    assert result.episodes.count == 4
    assert result.episodes.hash != trained.episodes.hash
    assert "tested by eval.py" in result.selection.note
    assert (path.parent / "previews.png").is_file()
    assert (run.folder / "result.json").read_bytes() == before


class Watch(pl.LightningModule):
    """Notes which episodes each epoch trains on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[int, list[tuple[int, str]]] = {}

    def training_step(self, episode: Episode, batch_idx: int) -> torch.Tensor:
        rows = zip(episode.index.tolist(), episode.query_ids, strict=True)
        self.seen.setdefault(self.current_epoch, []).extend(rows)
        return self.weight * 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_overfitting_repeats_the_same_episodes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """conf/debug/overfit.yaml: the trainer's overfit_batches must work with our sampler."""
    monkeypatch.setenv("FSS_CACHE", str(run.home / "cache"))
    config = read_checkpoint(run.folder / "checkpoints" / "best.ckpt").config
    data, net = build_data(config, build_source(config["data"]), InputSpec()), Watch()
    trainer = pl.Trainer(
        max_epochs=2,
        overfit_batches=1,
        accelerator="cpu",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net, datamodule=data)
    assert len(net.seen[0]) == 8
    assert net.seen[0] == net.seen[1]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("finetune=svff", ("finetune/svff", "freeze", "full", "svf")),
        ("metod=baseline", ("metod",)),
        ("finetune.stage=[2]", ("finetune.stage",)),
        ("fold=7", ("fold=7", "0 to 3")),
    ],
)
def test_a_wrong_option_is_answered_at_once(option: str, words: tuple[str, ...], tmp_path: Path) -> None:
    done = call(tmp_path, "train.py", option, python=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in done.err.splitlines() if line.startswith("import time:")}
    said = "\n".join(line for line in done.err.splitlines() if not line.startswith("import time:"))
    assert done.code == 2
    assert "hydra" in imported
    assert not imported & {"torch", "pytorch_lightning", "albumentations", "cv2", "wandb"}
    assert "Traceback" not in said
    assert said.count("Error") == 1
    assert len(said.strip().splitlines()) < 15
    assert all(word in said for word in words)
    assert not list(tmp_path.glob("multirun/*/*/result.json"))


def test_a_missing_data_set_names_its_folder(tmp_path: Path) -> None:
    done = call(tmp_path, "train.py", "data=shapes", "data.root=nowhere/shapes", "backbone.weights=none")
    assert done.code == 2
    assert "nowhere/shapes" in done.err
    assert "fss data shapes" in done.err
    assert "Traceback" not in done.err
