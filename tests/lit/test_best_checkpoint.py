"""The best score survives a move of the run's folder between interruption and continuation."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from fss.lit.callbacks.best_checkpoint import BestCheckpoint


def state(folder: Path) -> dict[str, object]:
    best = str(folder / "best.ckpt")
    return {
        "monitor": "val/miou", "best_model_score": torch.tensor(0.7), "best_model_path": best,
        "current_score": torch.tensor(0.5), "dirpath": str(folder), "best_k_models": {best: torch.tensor(0.7)},
        "kth_best_model_path": best, "kth_value": torch.tensor(0.7), "last_model_path": "",
    }  # fmt: skip


def test_a_moved_run_keeps_its_best_score(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "checkpoints", tmp_path / "new" / "checkpoints"
    old.mkdir(parents=True)
    (old / "best.ckpt").write_text("")
    shutil.move(old.parent, new.parent)
    callback = BestCheckpoint(new)
    callback.load_state_dict(state(old))
    assert callback.best_model_score == torch.tensor(0.7)
    assert callback.best_model_path == str(new / "best.ckpt")
    assert callback.best_k_models == {str(new / "best.ckpt"): torch.tensor(0.7)}
    assert callback.kth_value == torch.tensor(0.7)
    assert callback.last_model_path == ""
    assert not callback.check_monitor_top_k(_Trainer(), torch.tensor(0.6)), "a lower score must not replace it"  # type: ignore[arg-type]
    assert callback.check_monitor_top_k(_Trainer(), torch.tensor(0.8))  # type: ignore[arg-type]


class _Trainer:
    class strategy:  # noqa: N801
        @staticmethod
        def reduce_boolean_decision(decision: bool) -> bool:
            return bool(decision)
