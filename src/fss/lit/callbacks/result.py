"""Write the result file of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl

from fss.files import write_json
from fss.lit.callbacks.best_checkpoint import BestCheckpoint
from fss.lit.callbacks.cost import CostMeter
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.methods.base import FewShotHead
from fss.types import TuneReport

SCHEMA_VERSION = 1

_FILES = {
    "previews": "previews.npz",
    "episodes": "episodes.csv",
    "best": "checkpoints/best.ckpt",
    "last": "checkpoints/last.ckpt",
}


@dataclass(frozen=True)
class RunFacts:
    """What is known about a run before it starts.

    Attributes:
        identity: hash of everything that determines the numbers.
        key: the cell of a table: data, method, backbone, finetune, fold, shot, seed, recipe, experiment.
        selection: ``rule`` and a ``note`` on how the tested checkpoint was chosen.
        config: resolved configuration.
        versions: versions of Python and the libraries.
        commit: commit of the code, or None outside a checkout.
        notes: deviations to record.
    """

    identity: str
    key: dict[str, Any]
    selection: dict[str, str]
    config: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Tested(Protocol):
    """A module that has tested its model."""

    model: Any

    def result_scores(self) -> dict[str, Any]:
        """Return the ``scores`` of the result file."""
        ...

    def result_episodes(self, data: Any) -> dict[str, Any]:
        """Return what was tested: ``count``, ``hash`` and ``sampler``."""
        ...


class ResultWriter(pl.Callback):
    """Writes ``result.json`` when the test ends.

    Attributes:
        path: the file.
        facts: what is known before the run.
    """

    def __init__(self, folder: Path, facts: RunFacts, finetune: BackboneFinetune, cost: CostMeter) -> None:
        """Store the parts.

        Args:
            folder: receives ``result.json``.
            facts: what is known before the run.
            finetune: callback that knows what trained.
            cost: callback of the same trainer that measures cost.
        """
        self.path = folder / "result.json"
        self.facts = facts
        self.finetune = finetune
        self.cost = cost

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the result file."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Tested)
        data = trainer.datamodule  # type: ignore[attr-defined]
        report = self.finetune.report
        assert report is not None
        facts = self.facts
        write_json(
            self.path,
            {
                "schema_version": SCHEMA_VERSION,
                "status": "finished",
                "identity": facts.identity,
                "key": facts.key,
                "scores": pl_module.result_scores(),
                "episodes": pl_module.result_episodes(data),
                "data": getattr(data, "data_facts", {}),
                "selection": {**facts.selection, **_validated(trainer)},
                "parameters": _parameters(pl_module, report),
                "cost": self.cost.summary(),
                "notes": [*facts.notes, *report.notes, *_of_head(pl_module, report, facts.config)],
                "config": facts.config,
                "versions": facts.versions,
                "commit": facts.commit,
                "files": self._files(),
            },
        )

    def _files(self) -> dict[str, str]:
        """Return the files next to the result, as paths relative to its folder."""
        folder = self.path.parent
        return {name: file for name, file in _FILES.items() if (folder / file).is_file()}


def _validated(trainer: pl.Trainer) -> dict[str, float]:
    """Return the validation score of the checkpoint that was kept as the best; nothing if none was."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, BestCheckpoint) and callback.best_model_score is not None:
            return {"validation_miou": float(callback.best_model_score)}
    return {}


def _of_head(module: Tested, report: TuneReport, config: dict[str, Any]) -> list[str]:
    head = module.model.head
    if not isinstance(head, FewShotHead):
        return []
    return head.notes(report.trainable_total > 0, config["data"]["test_shot"] or config["shot"])


def _parameters(module: Tested, report: TuneReport) -> dict[str, Any]:
    return {
        "backbone_trainable": report.trainable_total,
        "backbone_total": report.plain_total,
        "backbone_total_injected": report.total,
        "head_trainable": sum(p.numel() for p in module.model.head.parameters() if p.requires_grad),
        "per_layer": report.trainable,
    }
