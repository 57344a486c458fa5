"""A run that diverges fails for good: exit status, failed.json, no result, and no process that hangs."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from tests.programs import TINY, Program, call

OPTIONS = (
    *TINY, "logger=csv", "data.epochs=2", "trainer.limit_train_batches=3", "data.test_episodes=8",
    "data.val_episodes=4", "recipe.batch_size=2",
)  # fmt: skip
SAID = "The training diverged: the loss of step 2 is not finite"


def test_a_sweep_counts_a_run_that_diverges_as_failed(home: Path) -> None:
    code, text = call(home, "train.py", "-m", *OPTIONS, "recipe.optimizer.lr=1e30,0.01", "group=sweep")
    assert code == 2, text
    failed, finished = {}, []
    for folder in (home / "multirun/sweep").glob("*-*"):
        if (folder / "failed.json").is_file():
            failed[folder] = json.loads((folder / "failed.json").read_text())
        if (folder / "result.json").is_file():
            finished.append(folder)
    (folder,) = failed
    assert SAID in failed[folder]["error"]
    assert "No checkpoint was written before" in failed[folder]["text"]
    assert len(finished) == 1
    assert finished[0] != folder
    assert not list(folder.glob("checkpoints/*"))


@pytest.mark.parametrize("method", ["baseline", "base_learner"])
def test_two_processes_end_together(home: Path, method: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(2):
        place = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
        }  # fmt: skip
        more = (f"method={method}", "recipe.optimizer.lr=1e30", f"group=two-{method}", "trainer.devices=2")
        own = ("data.base.size=65", "data.base.epochs=2", "recipe.batch_size=4") if method == "base_learner" else ()
        environment = {k: str(v) for k, v in place.items()}
        running.append(Program(home, "train.py", *OPTIONS, *more, *own, environment=environment))
    assert [one.wait(100) for one in running] == [2, 2], running[0].text()
    assert "The training diverged" in running[0].text()
    assert not list(home.glob(f"multirun/two-{method}/*/result.json"))
    for path in home.glob(f"multirun/two-{method}/*/checkpoints/*"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(v.isfinite().all()) for v in state.values())
