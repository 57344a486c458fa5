"""A head that remembers is given in training what it said of the same query and class before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.lit.fabricate import CLASSES, Episodes, recipe, trainer
from tests.methods.fakes import Recorder, episode, tiny

from fss.finetune.freeze import Freeze
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.episodic import EpisodicModule
from fss.lit.state_memory import StateMemory
from fss.model.head_call import PREVIOUS
from fss.model.segmenter import FewShotSegmenter
from fss.types import FeatureSpec


def test_by_query_and_class() -> None:
    memory, batch = StateMemory(), episode()
    assert memory.recall(batch) is None
    memory.keep(batch, torch.tensor([[1.0], [2.0]]))
    other = episode()
    other.query_ids = ["q1", "q7"]
    other.class_id = torch.tensor([2, 2])
    recalled = memory.recall(other)
    assert recalled is not None
    assert recalled.tolist() == [[2.0], [0.0]], "zeros where nothing is known"
    other.class_id = torch.tensor([1, 2])
    assert memory.recall(other) is None, "another class of the same query"
    memory.keep(batch, torch.tensor([[3.0], [4.0]]))
    restored = StateMemory()
    restored.load_state_dict(memory.state_dict())
    again = restored.recall(batch)
    assert again is not None
    assert again.tolist() == [[3.0], [4.0]]


def module() -> tuple[EpisodicModule, Recorder]:
    head = Recorder(FeatureSpec(stages=(2,), extras=frozenset({PREVIOUS})))
    head.remembers = True  # type: ignore[misc]
    net = FewShotSegmenter(tiny(), head)
    return EpisodicModule(net, recipe(), CLASSES, CLASSES, CLASSES, card={"config": {"fold": 0}}), head


def test_across_epochs_and_interruptions(tmp_path: Path) -> None:
    """The state of the Recorder counts its calls; every batch holds the queries q0 and q1 of the same two classes."""

    def fit(epochs: int, resume: str | None = None) -> list[Any]:
        one, head = module()
        run = trainer(tmp_path, BackboneFinetune(Freeze()), epochs=epochs, limit_val_batches=0)
        run.fit(one, datamodule=Episodes(2), ckpt_path=resume)
        run.save_checkpoint(tmp_path / "last.ckpt")
        previous = [call.extras.get(PREVIOUS) for call in head.calls]
        return [None if p is None else float(p.unique()) for p in previous]

    assert fit(1) == [None, 1.0]
    assert fit(2, str(tmp_path / "last.ckpt")) == [2.0, 1.0]


def test_a_test_remembers_nothing() -> None:
    one, head = module()
    one.eval()
    one.memory.keep(episode(), torch.ones(2, 1, 5, 5))  # type: ignore[union-attr]
    one.model.run_episode(episode())
    assert PREVIOUS not in head.calls[0].extras
