"""Several processes and loader workers: the same episodes, the same counts, the same weights."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from tests.programs import TINY, Program, call

MODEL = (*TINY, "logger=csv", "trainer.log_every_n_steps=1")
STEPS = 20


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    """The folder of a run on one process."""
    return train(home, "one", 1)


def train(home: Path, group: str, processes: int, *more: str) -> Path:
    options = (
        *MODEL, f"group={group}", "data.epochs=4", "recipe.batch_size=6", "recipe.optimizer.lr=0.2",
        "trainer.limit_train_batches=5", "data.test_episodes=20", "data.val_episodes=7", *more,
    )  # fmt: skip
    together(home, processes, "train.py", *options)
    (folder,) = (home / "multirun" / group).iterdir()
    return folder


def together(home: Path, processes: int, program: str, *arguments: str) -> None:
    """Run a program in several processes as torchrun starts them (gloo)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(processes):
        place = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "GROUP_RANK": 0,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
        }  # fmt: skip
        environment = {k: str(v) for k, v in place.items()} if processes > 1 else {}
        devices = (f"trainer.devices={processes}",) if processes > 1 else ()
        running.append(Program(home, program, *arguments, *devices, environment=environment))
    for one in running:
        assert one.wait() == 0, one.text()


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (1, 1), (1, 4), (2, 0), (3, 0)])
def test_the_same_test_episodes(home: Path, trained: Path, processes: int, workers: int) -> None:
    """Row by row: class, images, intersections and unions of 200 episodes; 200 is no multiple of 3."""
    out = home / f"test-{processes}-{workers}"
    together(
        home, processes, "eval.py", f"ckpt={trained / 'checkpoints/last.ckpt'}", "test_episodes=200", f"out={out}",
        f"workers={workers}", "trainer=cpu", "trainer.enable_progress_bar=false", "previews=5",
    )  # fmt: skip
    result = json.loads((out / "result.json").read_text())
    assert result["episodes"]["count"] == 200
    rows = (out / "episodes.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(i) for i in range(200)]
    expected = home / "expected.csv"
    if not expected.is_file():
        expected.write_text("\n".join(rows))
        (home / "expected.json").write_text(json.dumps([result["scores"], result["episodes"]]))
        (home / "expected.npz").write_bytes((out / "previews.npz").read_bytes())
    assert "\n".join(rows) == expected.read_text()
    assert [result["scores"], result["episodes"]] == json.loads((home / "expected.json").read_text())
    assert (out / "previews.npz").stat().st_size == (home / "expected.npz").stat().st_size


STAGE_ONE = ("method=base_learner", "data.base.size=65", "data.base.epochs=1", "trainer.limit_train_batches=2")
STAGE_TWO = (
    "method=bam", "data.epochs=4", "recipe.batch_size=6", "recipe.optimizer.lr=0.05", "trainer.limit_train_batches=5",
    "data.test_episodes=20", "data.val_episodes=7", "method.base_learner.train_if_missing=false",
)  # fmt: skip


@pytest.mark.slow
def test_bam_has_the_same_weights(home: Path) -> None:
    """With a base learner that is there. Dropout of either learner is on."""
    together(home, 1, "train.py", *MODEL, *STAGE_ONE, "group=learner")
    folders = []
    for processes in (1, 2):
        together(home, processes, "train.py", *MODEL, *STAGE_TWO, f"group=bam{processes}")
        folders += list((home / f"multirun/bam{processes}").iterdir())
    states = [torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in folders]
    assert [s["global_step"] for s in states] == [STEPS, STEPS]
    for name, value in states[0]["state_dict"].items():
        if value.is_floating_point():
            distance = float((value - states[1]["state_dict"][name]).norm() / value.norm().clamp(min=1e-12))
            assert distance < 1e-5, f"{name}: {distance}"
    assert folders[0].name == folders[1].name


@pytest.mark.slow
@pytest.mark.parametrize("launched", [False, True], ids=["torchrun", "by option alone"])
def test_both_stages_on_two_processes(home: Path, launched: bool) -> None:
    """One command trains the base learner, then BAM, with all processes in both.

    That a base learner has the numbers of one process: test_parallel_norm.py. In the second stage batch norm is
    frozen.
    """
    options = (
        *MODEL, "method=bam", "data.base.size=65", "data.base.epochs=1", "data.epochs=1", "recipe.batch_size=2",
        "trainer.limit_train_batches=2", "data.test_episodes=8", "data.val_episodes=4",
        'method.base_learner.overrides=["method.width=8"]',
    )  # fmt: skip
    place = home / f"both-{launched}"
    (place / "data").mkdir(parents=True)
    (place / "data/shapes").symlink_to(home / "data/shapes")
    if launched:
        code, text = call(place, "train.py", *options, "trainer.devices=2")
        assert code == 0, text
    else:
        together(place, 2, "train.py", *options)
    results = [json.loads(p.read_text()) for p in sorted((place / "multirun/runs").glob("*/result.json"))]
    assert [r["key"]["method"] for r in results] == ["bam", "base_learner"]
    assert results[1]["episodes"]["count"] == 40, "every image counted once"


@pytest.mark.parametrize("processes", [2, 3])
def test_the_same_weights(home: Path, trained: Path, processes: int) -> None:
    """Dropout is on, and the pixels that count differ between the halves of a batch."""
    folder = train(home, f"many{processes}", processes)
    one = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    many = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert one["global_step"] == many["global_step"] == STEPS
    moved = 0
    for name, value in one["state_dict"].items():
        other = many["state_dict"][name]
        if value.is_floating_point():
            distance = float((value - other).norm() / value.norm().clamp(min=1e-12))
            assert distance < 1e-5, f"{name}: {distance}"
            moved += distance > 0
        else:
            assert torch.equal(value, other), name
    assert moved, "the processes did share the work"
    scores = [json.loads((f / "result.json").read_text())["identity"] for f in (trained, folder)]
    assert scores[0] == scores[1], "the number of devices is no part of what a run is"


def test_more_processes_than_episodes(home: Path, trained: Path) -> None:
    ckpt = f"ckpt={trained / 'checkpoints/last.ckpt'}"
    code, text = call(
        home, "eval.py", ckpt, "test_episodes=1", f"out={home / 'few'}", "trainer=cpu", "trainer.devices=2"
    )
    assert code == 2, text
    assert "1 episodes cannot be shared by 2 processes" in text
    assert not (home / "few").exists()


def test_batch_that_cannot_be_shared(home: Path) -> None:
    code, text = call(home, "train.py", *MODEL, "trainer.devices=2", "recipe.batch_size=5", "group=odd")
    assert code == 2, text
    assert "recipe.batch_size=5 cannot be shared by 2 processes" in text


def test_two_devices_by_option_alone(home: Path, trained: Path) -> None:
    """Lightning starts the second process itself; it writes nothing of its own, and stops with the first."""
    code, text = call(
        home, "train.py", *MODEL, "group=launched", "trainer.devices=2", "data.epochs=1", "recipe.batch_size=6",
        "trainer.limit_train_batches=2", "data.test_episodes=5", "data.val_episodes=4",
    )  # fmt: skip
    assert code == 0, text
    assert text.count("Fine-tuning svf") == 1
    (folder,) = (home / "multirun/launched").iterdir()
    assert json.loads((folder / "result.json").read_text())["episodes"]["count"] == 5
