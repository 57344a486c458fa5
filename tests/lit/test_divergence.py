"""What is not finite ends a run, and replaces no checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.lit.fabricate import Episodes, module, recipe, trainer, writer
from tests.methods.fakes import tiny
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fss.errors import FssError
from fss.finetune.freeze import Freeze
from fss.lit.base_learner import BaseLearnerModule
from fss.lit.callbacks import divergence
from fss.lit.callbacks.best_checkpoint import BestCheckpoint
from fss.lit.callbacks.cost import CostMeter
from fss.lit.callbacks.divergence import DivergenceGuard
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.snapshots import Snapshots
from fss.lit.episodic import EpisodicModule
from fss.lit.generalised import GeneralisedModule
from fss.metrics.undecided import Undecided
from fss.types import HeadOutput

STEPS = 4


def run(folder: Path, *more: pl.Callback, **options: Any) -> pl.Trainer:
    kept = [BestCheckpoint(folder / "checkpoints"), Snapshots(folder / "checkpoints/last.ckpt", minutes=0)]
    return trainer(
        folder, DivergenceGuard(folder / "checkpoints"), BackboneFinetune(Freeze()), *more, *kept,
        enable_checkpointing=True, **{"epochs": 3, **options},
    )  # fmt: skip


class Spoil(pl.Callback):
    """Does something to the module after a step."""

    def __init__(self, step: int, what: Any) -> None:
        self.step, self.what = step, what

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                self.what(trainer, pl_module)


def loss_at(net: EpisodicModule, step: int, value: float) -> None:
    """Let the loss of one step be something else."""
    plain = net.training_step

    def training_step(episode: Any, batch_idx: int) -> Any:
        loss = plain(episode, batch_idx)
        return loss.detach() * value + 0 * loss if net.global_step + 1 == step else loss

    net.training_step = training_step  # type: ignore[method-assign]


def stored(folder: Path) -> dict[str, tuple[int, bool]]:
    """Return step of, and whether all is finite in, every checkpoint."""
    found = {}
    for path in sorted((folder / "checkpoints").glob("*")):
        content = torch.load(path, weights_only=True)
        found[path.name] = (
            content["global_step"],
            all(bool(v.isfinite().all()) for v in content["state_dict"].values()),
        )
    return found


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [1, 6, 12])
def test_a_loss_names_its_step_and_the_last_good_checkpoint(step: int, value: float, tmp_path: Path) -> None:
    """In the first epoch, in the middle of the second, and at the very last step of three."""
    net = module()
    loss_at(net, step, value)
    ending = "No checkpoint was written before" if step == 1 else rf"checkpoints/last\.ckpt, of step {step // 5 * 4}\."
    with pytest.raises(FssError, match=rf"diverged: the loss of step {step} is not finite.*{ending}"):
        run(tmp_path).fit(net, datamodule=Episodes(STEPS))
    assert all(finite and at <= step // 5 * 4 for at, finite in stored(tmp_path).values())


def test_a_look_comes_after_some_steps_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "EVERY", 2)
    net, steps = module(), []
    loss_at(net, 1, float("nan"))
    count = Spoil(0, None)
    count.on_train_batch_start = lambda *_: steps.append(1)  # type: ignore[method-assign,assignment]
    with pytest.raises(FssError, match="the loss of step 1"):
        run(tmp_path, count).fit(net, datamodule=Episodes(STEPS))
    assert len(steps) == 2


def weight(trainer: pl.Trainer, net: Any) -> None:
    net.model.head.cls[3].bias[0] = torch.inf


def statistic(trainer: pl.Trainer, net: Any) -> None:
    net.model.backbone.layer3[0].bn1.running_var[0] = torch.nan


def momentum(trainer: pl.Trainer, net: Any) -> None:
    trainer.optimizers[0].state[net.model.head.cls[3].bias]["momentum_buffer"][0] = torch.inf


@pytest.mark.parametrize(
    ("what", "name"),
    [(weight, r"model\.head\.cls\.3\.bias"), (statistic, r"model\.backbone\.layer3\.0\.bn1\.running_var"),
     (momentum, "the optimiser's momentum_buffer")],
)  # fmt: skip
@pytest.mark.parametrize("validated", [True, False])
def test_what_was_spoilt_after_the_last_step_of_an_epoch(what: Any, name: str, validated: bool, tmp_path: Path) -> None:
    """No loss tells; the checkpoints stay those of the epoch before, with a validation as without."""
    limits = {} if validated else {"limit_val_batches": 0}
    with pytest.raises(FssError, match=rf"after step 8 the weights.*, {name} first .*last\.ckpt, of step 4\."):
        run(tmp_path, Spoil(8, what), **limits).fit(module(), datamodule=Episodes(STEPS))
    found = stored(tmp_path)
    assert found["last.ckpt"] == (4, True)
    assert found.get("best.ckpt", (4, True)) == (4, True)


def test_a_run_that_starts_with_broken_weights_takes_no_step(tmp_path: Path) -> None:
    net, steps = module(), []
    net.training_step = lambda *_: steps.append(1)  # type: ignore[method-assign,assignment]
    with torch.no_grad():
        weight(None, net)  # type: ignore[arg-type]
    with pytest.raises(FssError, match=r"starts from are not finite.*backbone\.weights"):
        run(tmp_path).fit(net, datamodule=Episodes(STEPS))
    assert not steps
    assert not stored(tmp_path)


def score(folder: Path, net: EpisodicModule) -> None:
    finetune, cost = BackboneFinetune(Freeze()), CostMeter()
    callbacks = [DivergenceGuard(folder), finetune, cost, writer(folder, finetune, cost)]
    trainer(folder, *callbacks).test(net, datamodule=Episodes(2), verbose=False)


def test_broken_weights_are_not_tested(tmp_path: Path) -> None:
    net = module()
    with torch.no_grad():
        weight(None, net)  # type: ignore[arg-type]
    with pytest.raises(FssError, match="weights under test are not finite"):
        score(tmp_path, net)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("spoilt", [None, 2])
def test_one_episode_without_a_score_leaves_no_result(spoilt: int | None, tmp_path: Path) -> None:
    """Its pixels would count as background."""
    net = module()
    plain = net.model.head.forward

    def forward(calls: list[int], features: Any) -> Any:
        calls.append(1)
        output = plain(features)
        output.logits[0] = torch.nan if len(calls) == spoilt else output.logits[0]
        return output

    net.model.head.forward = partial(forward, [])  # type: ignore[method-assign]
    if spoilt is None:
        score(tmp_path, net)
        assert (tmp_path / "result.json").exists()
        return
    with pytest.raises(FssError, match="The scores of 1 of 4 images are not finite"):
        score(tmp_path, net)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_image_without_a_largest_finite_score_is_not_decided(value: float) -> None:
    logits, metric = torch.zeros(3, 2, 4, 4), Undecided()
    logits[0, 0, 0, 0] = -torch.inf  # the other score decides
    logits[1, :, 2, 3] = value
    metric.update(logits, torch.zeros(3, 5, 2, 2))
    metric.update(torch.zeros(3, 5, 2, 2))
    assert metric.compute() == (1, 6)


class Answers(nn.Module):
    """Scores of every image; those of the base learner can be spoilt, which no loss of a test tells."""

    def __init__(self, spoilt: bool) -> None:
        super().__init__()
        self.head, self.spoilt = nn.Module(), spoilt
        self.head.align_corners = True  # type: ignore[assignment]

    def run_episode(self, episode: Any) -> HeadOutput:
        base = torch.zeros(len(episode), 3, 4, 4)
        base[0, 1, 2, 2] = torch.nan if self.spoilt else 0
        return HeadOutput(torch.zeros(len(episode), 2, 4, 4), branch_logits={"base": base})


class GeneralisedEpisodes(Episodes):
    def make(self, full: bool) -> Any:
        made = super().make(full)
        for batch in made:
            batch.full_base_labels = [label.clone() for label in batch.full_labels]
        return made


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_generalised_test_scores_no_image_that_is_not_decided(spoilt: bool, tmp_path: Path) -> None:
    """A score that is not a number counts as the first class, and this test has no loss."""
    net = GeneralisedModule(Answers(spoilt), ["a", "b"], ["ring", "star"])  # type: ignore[arg-type]
    tester = trainer(tmp_path, DivergenceGuard(tmp_path))
    if not spoilt:
        tester.test(net, datamodule=GeneralisedEpisodes(2), verbose=False)
        assert net.test_scores.episodes == 4
        return
    with pytest.raises(FssError, match=r"scores of 2 of 4 images are not finite.*precision=32-true"):
        tester.test(net, datamodule=GeneralisedEpisodes(2), verbose=False)


class Learner(nn.Module):
    """Overflows in evaluation alone: the loss and the weights are finite."""

    def __init__(self, spoilt: bool) -> None:
        super().__init__()
        self.backbone, self.head, self.spoilt = tiny(), nn.Conv2d(3, 3, 1), spoilt
        groups = {"pyramid": [self.head.weight], "classifier": [self.head.bias]}
        named = [SimpleNamespace(name=name, parameters=params) for name, params in groups.items()]
        self.head.param_groups = lambda: named  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images)
        return logits * torch.inf if self.spoilt and not self.training else logits


class Images(SimpleNamespace):
    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_base_learner_whose_validation_overflows_is_not_kept(spoilt: bool, tmp_path: Path) -> None:
    batches = [Images(images=torch.rand(2, 3, 8, 8), labels=torch.ones(2, 8, 8, dtype=torch.uint8))] * 2
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    net = BaseLearnerModule(Learner(spoilt), recipe(), ["a", "b"])  # type: ignore[arg-type]
    keeping = trainer(
        tmp_path, DivergenceGuard(tmp_path), BestCheckpoint(tmp_path / "checkpoints"), enable_checkpointing=True
    )
    if not spoilt:
        keeping.fit(net, loader, loader)
        assert set(stored(tmp_path)) == {"best.ckpt"}
        return
    with pytest.raises(FssError, match="diverged: after step 2 the scores of 4 of 4 images are not finite"):
        keeping.fit(net, loader, loader)
    assert not stored(tmp_path)
