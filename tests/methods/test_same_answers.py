"""Every head of conf/method answers a test episode the same, however the test is run.

Scores before the decision are compared, in double precision, so that no tie hides a difference.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.contracts.test_heads import NAMES, model
from torch import Tensor

from fss.config.compose import composed
from fss.data.datamodule import FewShotDataModule
from fss.data.sources.shapes import ShapesSource
from fss.lit.callbacks.feature_caching import FeatureCaching
from fss.lit.episodic import EpisodicModule
from fss.lit.optim import Recipe
from fss.runs.build import build_data, scoring
from fss.runs.known_warnings import hide_known_warnings
from fss.types import Episode, HeadOutput, InputSpec

EPISODES, SHOT = 7, 2  # no multiple of a batch of 3, nor of 2 processes
PROCESSES = [pytest.param(n, marks=() if n == "cyctr" else pytest.mark.slow) for n in NAMES]  # cyctr draws at random

BASE = 15
"""Base classes of the drawn data."""


@dataclass(frozen=True)
class Way:
    """How a test is run.

    Attributes:
        workers: loader processes.
        batch: episodes of a step.
        cache: MiB of the feature cache, which groups episodes by image; 0: none.
        shuffled: episodes come in any order.
    """

    workers: int = 0
    batch: int = 1
    cache: int = 0
    shuffled: bool = False


WAYS = {
    "batches of 3": Way(batch=3),
    "one worker, another order": Way(workers=1, shuffled=True),
    "four workers, batches of 3": Way(workers=4, batch=3),
    "cache": Way(cache=64),
    "cache, batches of 3, another order, four workers": Way(workers=4, batch=3, cache=64, shuffled=True),
}


class Kept(EpisodicModule):
    """Keeps what the head says of every test episode, of each support where it is called for each.

    Attributes:
        scores_of: number of an episode -> all logits of it.
    """

    scores_of: dict[int, Tensor]

    def test_step(self, episode: Episode, batch_idx: int) -> dict[str, Any]:
        run = self.model.run_episode

        def kept(batch: Episode) -> HeadOutput:
            output = run(batch)
            outputs = (output, *output.shots)
            for place, number in enumerate(batch.index.tolist()):
                self.scores_of[number] = torch.cat([o.logits[place].flatten() for o in outputs]).clone()
            return output

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.model, "run_episode", kept)
            return super().test_step(episode, batch_idx)


class Shuffled(FewShotDataModule):
    """Brings test episodes in an order of its own."""

    def _order(self, draws: Any, split: Any) -> list[int] | None:
        return random.Random(5).sample(range(len(draws)), len(draws))


@cache
def config(name: str, root: Path) -> dict[str, Any]:
    options = (
        f"method={name}",
        f"shot={SHOT}",
        "backbone=resnet18",
        "data=shapes",
        f"data.root={root}",
        "data.size=33",
    )
    return composed([*options, f"data.test_episodes={EPISODES}", "data.small_classes=drop"])


def answers(name: str, root: Path, folder: Path, way: Way, processes: int = 1) -> Kept:
    """Build head and data anew, and test."""
    hide_known_warnings()
    settings = config(name, root) | {
        "workers": way.workers, "test_batch_size": way.batch, "feature_cache_mb": way.cache,
    }  # fmt: skip
    data = build_data(settings, ShapesSource(root), InputSpec())
    if way.shuffled:
        data.__class__ = Shuffled
    names = [list(classes.values()) for classes in (data.base_classes, data.val_classes, data.novel_classes)]
    recipe = Recipe(optimizer=torch.optim.SGD)  # type: ignore[arg-type]
    module = Kept(model(name, "resnet18"), recipe, *names, base_classes=BASE, scoring=scoring(data)).double()
    module.scores_of = {}
    trainer = pl.Trainer(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", logger=False,
        enable_progress_bar=False, enable_model_summary=False, precision="64-true", use_distributed_sampler=False,
        default_root_dir=folder, enable_checkpointing=False, callbacks=[FeatureCaching(way.cache)],
    )  # fmt: skip
    trainer.test(module, datamodule=data, verbose=False)
    return module


@pytest.fixture(autouse=True)
def _sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """More positions than keys, so that CyCTR draws; base learners of as many classes as the data has."""
    monkeypatch.setattr("fss.methods.cyctr.KEYS_PER_SHOT", 5)
    monkeypatch.setattr("tests.contracts.test_heads.BASE_CLASSES", BASE)


@pytest.fixture(scope="module")
def expected(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kept]:
    """Tests episode by episode in this process, without a cache; made when they are asked for."""

    class Made(dict[str, Kept]):
        def __missing__(self, name: str) -> Kept:
            self[name] = answers(name, drawn, tmp_path_factory.mktemp("plain"), Way())
            return self[name]

    return Made()


def same(found: dict[int, Tensor], wanted: dict[int, Tensor]) -> None:
    assert found.keys() == wanted.keys() == set(range(EPISODES))
    for number, scores in wanted.items():
        assert float((found[number] - scores).abs().max()) < 1e-9 * float(scores.abs().max()), number
    assert not torch.allclose(wanted[0], wanted[1]), "the answers must differ for the comparison to mean something"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_in_one_process(name: str, way: str, drawn: Path, expected: dict[str, Kept], tmp_path: Path) -> None:
    plain = expected[name]
    found = answers(name, drawn, tmp_path, WAYS[way])
    same(found.scores_of, plain.scores_of)
    assert torch.equal(found.test_rows, plain.test_rows)
    assert plain.test_rows[:, 0].tolist() == list(range(EPISODES))


@pytest.mark.parametrize("way", [Way(), Way(workers=1, batch=3, cache=64)], ids=["plain", "cache, batches of 3"])
@pytest.mark.parametrize("name", PROCESSES)
def test_in_two_processes(name: str, way: Way, drawn: Path, expected: dict[str, Kept], tmp_path: Path) -> None:
    plain = expected[name]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=_rank, args=(rank, port, name, drawn, tmp_path, way)) for rank in range(2)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join(120)
        one.kill()  # one that waits for a failed other
    assert [one.exitcode for one in ranks] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert all(len(part["scores"]) in (EPISODES // 2, EPISODES // 2 + 1) for part in parts), "they share the work"
    same(parts[0]["scores"] | parts[1]["scores"], plain.scores_of)
    for part in parts:
        assert torch.equal(part["rows"], plain.test_rows)


def _rank(rank: int, port: int, name: str, root: Path, folder: Path, way: Way) -> None:
    """Be one of two processes that torchrun has started (gloo)."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    found = answers(name, root, folder, way, processes=2)
    torch.save({"scores": found.scores_of, "rows": found.test_rows}, folder / f"{rank}.pt")
