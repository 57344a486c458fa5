"""Fine-tuning, cost and result callbacks through Lightning's trainer, on episodes in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tests.lit.fabricate import CLASSES, Episodes, module, recipe, trainer, writer
from tests.methods.fakes import Recorder, tiny
from torch import Tensor, nn

from fss.checkpoints.tuned import apply_tuned, save_tuned
from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.svf import SVF
from fss.lit.callbacks.cost import CostMeter
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.episodic import EpisodicModule
from fss.model.segmenter import FewShotSegmenter
from fss.results import load_result
from fss.types import FeatureSpec


def test_finetune_through_fit_and_test(tmp_path: Path) -> None:
    finetune, net = BackboneFinetune(SVF(rank_rounding=8)), module()
    plain = {n: p.detach().clone() for n, p in net.model.backbone.named_parameters()}
    run = trainer(tmp_path, finetune)
    run.fit(net, datamodule=Episodes())
    report = finetune.report
    assert report is not None
    assert report.notes, "rounding to 8 truncates narrow layers"
    first = dict(net.named_modules())
    trained = {n: p.detach().clone() for n, p in net.model.backbone.named_parameters()}
    assert net.model.backbone.norm_mode == "eval"
    run.test(net, datamodule=Episodes(), verbose=False)
    assert dict(net.named_modules()) == first, "the second setup swaps nothing"
    assert finetune.report is not None
    assert finetune.report.notes == report.notes
    assert finetune.report.trainable == report.trainable
    assert all(torch.equal(p, trained[n]) for n, p in net.model.backbone.named_parameters())
    for name, value in plain.items():
        if name in trained:  # batch norm; convolutions have become factors
            assert torch.equal(trained[name], value), name
    for name, buffer in net.model.backbone.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert int(buffer) == 0


def test_modes_of_fit_and_test(tmp_path: Path) -> None:
    seen: dict[str, tuple[bool, bool, bool]] = {}

    class Watch(pl.Callback):
        def _note(self, stage: str, net: Any) -> None:
            norms = [m for m in net.model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
            seen[stage] = (net.model.backbone.training, net.model.head.training, any(m.training for m in norms))

        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self._note(f"train{trainer.current_epoch}", pl_module)

        def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
            self._note("val", pl_module)

        def on_test_batch_start(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
            self._note("test", pl_module)

    net = module().eval()
    run = trainer(tmp_path, BackboneFinetune(SVF()), Watch(), epochs=2)
    run.fit(net, datamodule=Episodes(1))
    run.test(net, datamodule=Episodes(1), verbose=False)
    assert seen == {
        "train0": (True, True, False),
        "train1": (True, True, False),
        "val": (False, False, False),
        "test": (False, False, False),
    }


@pytest.mark.parametrize("strategy", [SVF(), Freeze()])
def test_checkpoint_restores_into_a_fresh_module(strategy: Strategy, tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path / "ck", filename="best", monitor="val/miou", mode="max", save_last=True)
    net = module()
    run = trainer(tmp_path, BackboneFinetune(strategy), keep, epochs=1, enable_checkpointing=True)
    run.fit(net, datamodule=Episodes(2))
    content = torch.load(tmp_path / "ck" / "last.ckpt", weights_only=True)
    assert content["fss"] == {"config": {"fold": 0}}
    fresh = module()
    with torch.no_grad():
        for p in fresh.parameters():
            p.add_(1)
    again = trainer(tmp_path, BackboneFinetune(strategy), epochs=2)
    steps: list[int] = []

    class Steps(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            steps.append(trainer.global_step)

    again.callbacks.append(Steps())
    again.fit(fresh, datamodule=Episodes(2), ckpt_path=str(tmp_path / "ck" / "last.ckpt"), weights_only=True)
    assert steps == [2, 3], "the first epoch is not repeated"
    tested = module()
    run.test(tested, datamodule=Episodes(2), ckpt_path=str(tmp_path / "ck" / "last.ckpt"), verbose=False)
    for (name, a), (other, b) in zip(net.state_dict().items(), tested.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b), name


def test_scores_are_those_of_the_predictions(tmp_path: Path) -> None:
    """Episode 0 of a batch is of class 0, episode 1 of class 1; labels have their original sizes."""
    outputs: list[dict[str, Any]] = []

    class Keep(pl.Callback):
        def on_test_batch_end(self, trainer: Any, pl_module: Any, batch_outputs: Any, *_: Any, **__: Any) -> None:
            outputs.append(batch_outputs)

    net, data = module(), Episodes(3)
    trainer(tmp_path, BackboneFinetune(Freeze()), Keep()).test(net, datamodule=data, verbose=False)
    inter, union = [0, 0], [0, 0]
    for batch, out in zip(data.make(True), outputs, strict=True):
        for c in (0, 1):
            label, predicted = batch.full_labels[c], out["predictions"][c]
            assert predicted.shape == label.shape == ((30, 33) if c == 0 else (33, 20))
            p, t = (predicted == 1) & (label != 255), label == 1
            inter[c] += int((p & t).sum())
            union[c] += int((p | t).sum())
            assert out["iou"][c] == pytest.approx(int((p & t).sum()) / max(int((p | t).sum()), 1))
        assert out["masks"].shape == (2, 33, 33)
    assert net.test_scores.episodes == 6
    assert net.test_scores.per_class == pytest.approx(tuple(i / u for i, u in zip(inter, union, strict=True)))
    assert net.test_rows.shape == (6, 6)
    said = net.result_scores()
    assert said["intervals"]["samples"] == 1000
    assert "images of each class" in said["intervals"]["resampled"]
    assert said["class_episodes"] == {"ring": 3, "star": 3}
    for name, (low, high) in said["class_intervals"].items():
        assert low <= said["per_class"][name] <= high


def test_validation_score_is_logged_in_per_cent(tmp_path: Path) -> None:
    net = module()
    run = trainer(tmp_path, BackboneFinetune(Freeze()))
    (found,) = run.validate(net, datamodule=Episodes(2), verbose=False)
    assert {"val/miou", "val/fb_iou", "val/loss", "val/iou_ring", "val/iou_star"} <= found.keys()
    assert found["val/miou"] == pytest.approx((found["val/iou_ring"] + found["val/iou_star"]) / 2, rel=1e-5)
    assert 1 < found["val/miou"] <= 100


class Square(torch.autograd.Function):
    """y = x^2, which keeps exactly x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Toy(pl.LightningModule):
    """Saves two tensors of 1000 and 500 values, one of them twice, besides its parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1000))
        self.steps = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        big = self.weight + 1  # 4000 bytes, saved below by two operations
        small = big[:500] + 0.0  # 2000 bytes
        self.steps += 1
        twice = Square.apply(big).sum() + Square.apply(big).sum()
        return Square.apply(small).sum() + twice + Square.apply(self.weight).sum()  # the parameter is not counted

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(3))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def test_cost_meter_counts_saved_bytes_of_a_known_toy(tmp_path: Path) -> None:
    cost, toy = CostMeter(), Toy()
    trainer(tmp_path, cost).fit(toy)
    assert toy.steps == 3
    assert cost.saved_bytes == 4 * (1000 + 500)
    summary = cost.summary()
    assert summary["saved_for_backward_mb"] == round(6000 / 2**20, 3)
    assert summary["train_seconds"] > 0
    assert summary["test_seconds"] == 0
    if not torch.cuda.is_available():
        assert summary["memory_kind"] == "saved_for_backward"
        assert summary["peak_memory_mb"] == summary["saved_for_backward_mb"]


def reading(*stages: int) -> EpisodicModule:
    backbone = tiny()
    net = FewShotSegmenter(backbone, Recorder(FeatureSpec(stages)))
    return EpisodicModule(net, recipe(), CLASSES, CLASSES, CLASSES, card={"config": {"fold": 0}})


@pytest.mark.parametrize("strategy", [SVF(), Full()])
def test_stages_that_the_head_does_not_read_do_not_train(strategy: Strategy, tmp_path: Path) -> None:
    """Here the head reads stages 2 and 3."""
    finetune, net = BackboneFinetune(strategy), reading(2, 3)
    trainer(tmp_path, finetune).fit(net, datamodule=Episodes(1))
    report, backbone = finetune.report, net.model.backbone
    assert report is not None
    assert report.trainable == {n: p.numel() for n, p in backbone.named_parameters() if p.requires_grad}
    assert any(n.startswith("layer3.") for n in report.trainable)
    assert not any(n.startswith("layer4.") for n in report.trainable)
    left_out = sum(strategy.apply(tiny()).trainable.values()) - report.trainable_total
    assert f"method=recorder reads no stage after stage 3: the {left_out:,} values" in report.notes[-1]
    trainer(tmp_path, finetune).test(net, datamodule=Episodes(1), verbose=False)
    assert finetune.report is not None
    assert finetune.report.notes == report.notes
    assert finetune.report.trainable == report.trainable
    save_tuned(tmp_path / "tuned.pt", backbone, {})
    other = tiny()
    strategy.apply(other)
    apply_tuned(tmp_path / "tuned.pt", other)
    state = other.state_dict()
    assert all(torch.equal(state[n], v) for n, v in backbone.state_dict().items())


def test_a_strategy_of_later_stages_alone_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, BackboneFinetune(SVF(stages=(4,))))
    with pytest.raises(FssError, match=r"finetune=svf trains values after stage 3 alone, and method=recorder"):
        run.fit(reading(2, 3), datamodule=Episodes(1))


def test_svf_saves_more_than_freeze(tmp_path: Path) -> None:
    saved = {}
    for strategy in (Freeze(), SVF()):
        cost = CostMeter()
        trainer(tmp_path, BackboneFinetune(strategy), cost, limit_val_batches=0).fit(module(), datamodule=Episodes(1))
        saved[strategy.name] = cost.saved_bytes
    assert 0 < saved["freeze"] < saved["svf"]


def test_result_file_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finetune, cost, net = BackboneFinetune(SVF(rank_rounding=8)), CostMeter(), module()
    monkeypatch.setattr(net.model.head, "notes", lambda tuned, shot: [f"tuned {tuned}, tested with {shot}"])
    run = trainer(tmp_path, finetune, cost, writer(tmp_path, finetune, cost))
    run.fit(net, datamodule=Episodes(2))
    assert not (tmp_path / "result.json").exists(), "only a finished test writes it"
    run.test(net, datamodule=Episodes(2), verbose=False)
    result = load_result(tmp_path / "result.json")
    assert result.identity == "f" * 64
    assert (result.key.fold, result.key.seed) == (0, 3)
    assert result.episodes.count == 4
    assert result.episodes.hash == "0" * 64
    assert result.episodes.sampler == "by hand", "the rule of the episodes tested, not a fixed word"
    assert result.scores.miou == pytest.approx(100 * net.test_scores.miou)
    assert list(result.scores.per_class) == CLASSES
    assert result.scores.miou_interval is not None
    assert result.scores.miou_interval[0] <= result.scores.miou <= result.scores.miou_interval[1]
    values = {n: m.S.numel() for n, m in net.model.backbone.named_modules() if isinstance(m, SVFConv2d)}
    counted = {f"{n}.S": v for n, v in values.items() if n[5] in "234"}
    assert result.parameters.per_layer == counted
    assert result.parameters.backbone_trainable == sum(counted.values())
    plain = module().model.backbone
    assert result.parameters.backbone_total == sum(p.numel() for p in plain.parameters())
    assert result.parameters.head_trainable == sum(p.numel() for p in net.model.head.parameters())
    assert result.cost.train_seconds is not None
    assert result.cost.train_seconds > 0
    assert result.selection.rule == "last"
    notes = json.loads((tmp_path / "result.json").read_text())["notes"]
    assert notes[0] == "made up"
    assert any("truncated" in n for n in notes)
    assert notes[-1] == "tuned True, tested with 2"
