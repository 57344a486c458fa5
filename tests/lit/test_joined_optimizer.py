"""Several optimisers in one run: equal to stepping each by itself, and resumed bit for bit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
from tests.lit.fabricate import CLASSES, Episodes, recipe, trainer
from tests.methods.fakes import tiny
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from fss.errors import FssError
from fss.finetune.svf import SVF
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.callbacks.seeding import StepSeed
from fss.lit.episodic import EpisodicModule
from fss.lit.joined_optimizer import JoinedOptimizer
from fss.lit.optim import Optimisation, build_optimizer, constant
from fss.methods.baseline import Baseline
from fss.model.segmenter import FewShotSegmenter
from fss.runs.build import build_recipe
from fss.types import ParamGroup


class TwoKinds(Baseline):
    """The baseline, whose residual part asks for an optimiser of its own, without decay of its biases."""

    name: ClassVar[str] = "two_kinds"

    def param_groups(self) -> list[ParamGroup]:
        own = [*self.res2.parameters(), self.cls[-1].weight]
        biases: list[nn.Parameter] = [self.cls[-1].bias]
        ids = {id(p) for p in [*own, *biases]}
        rest = [p for p in self.parameters() if id(p) not in ids]
        return [
            ParamGroup("rest", rest),
            ParamGroup("own", own, optimizer="transformer"),
            ParamGroup("biases", biases, 2.0, weight_decay=0.0, optimizer="transformer"),
        ]


FURTHER = {"transformer": Optimisation(partial(AdamW, lr=1e-2, weight_decay=1e-1), constant)}


def module(**changes: Any) -> EpisodicModule:
    backbone = tiny()
    backbone.norm_mode = "train"
    net = FewShotSegmenter(backbone, TwoKinds(backbone.channels, width=4))
    given = recipe(**{"further": FURTHER, **changes})
    return EpisodicModule(net, given, CLASSES, CLASSES, CLASSES, card={"config": {"fold": 0}})


def test_a_step_equals_those_of_the_parts() -> None:
    torch.manual_seed(0)
    pairs = [(nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2))) for _ in range(2)]
    for one, other in zip(*pairs, strict=True):
        other.data.copy_(one.data)
    (a, b), (c, d) = pairs
    joined = JoinedOptimizer([SGD([a], lr=0.1, momentum=0.9), AdamW([b], lr=0.01)])
    alone = [SGD([c], lr=0.1, momentum=0.9), AdamW([d], lr=0.01)]
    for _ in range(3):
        for x, y in ((a, b), (c, d)):
            x.grad, y.grad = x.detach() * 2, y.detach() ** 3
        joined.step()
        for optimizer in alone:
            optimizer.step()
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert joined.state.keys() == {a, b}


def test_a_closure_runs_once() -> None:
    value = nn.Parameter(torch.ones(1))
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        loss = value.square().sum()
        loss.backward()
        return loss

    joined = JoinedOptimizer([SGD([value], lr=0.25), SGD([nn.Parameter(torch.ones(1))], lr=1.0)])
    assert float(joined.step(closure).detach()) == 1.0
    assert calls == [True]
    assert float(value.detach()) == 0.5


def test_groups_kinds_and_schedules() -> None:
    net = module().model
    SVF().apply(net.backbone)
    optimizer, scheduler = build_optimizer(net, recipe(further=FURTHER), steps=2)
    assert isinstance(optimizer, JoinedOptimizer)
    found = [(g["name"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    expected = [("backbone", 0.01, 1e-2), ("rest", 0.1, 1e-2), ("own", 1e-2, 1e-1), ("biases", 2e-2, 0.0)]
    assert found == [(name, pytest.approx(lr), pytest.approx(decay)) for name, lr, decay in expected]
    assert [type(part) for part in optimizer.parts] == [SGD, AdamW]
    for p in net.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    scheduler.step()
    rates = [g["lr"] for part in optimizer.parts for g in part.param_groups]
    assert rates == pytest.approx([0.005, 0.05, 1e-2, 2e-2]), "cosine at half, and constant"


def test_without_the_optimiser_its_groups_are_the_main_ones() -> None:
    net = module().model
    SVF().apply(net.backbone)
    optimizer, _ = build_optimizer(net, recipe(), steps=2)
    assert type(optimizer) is SGD
    assert [g["name"] for g in optimizer.param_groups] == ["backbone", "rest", "own", "biases"]


def test_an_optimiser_that_nothing_asks_for() -> None:
    net = module().model
    SVF().apply(net.backbone)
    with pytest.raises(
        FssError, match=r"recipe\.optimizers has decoder, but the head two_kinds.*asks for: transformer"
    ):
        build_optimizer(net, recipe(further={"decoder": FURTHER["transformer"]}), steps=2)


class Stop(pl.Callback):
    """Write a checkpoint after two steps and end the training."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "two.ckpt")
            trainer.should_stop = True


def trained(folder: Path, *callbacks: pl.Callback, resume: str | None = None) -> EpisodicModule:
    one = module()
    run = trainer(folder, BackboneFinetune(SVF()), StepSeed(0), *callbacks, epochs=2, limit_val_batches=0)
    run.fit(one, datamodule=Episodes(2), ckpt_path=resume)
    return one


def test_resumed_bit_for_bit(tmp_path: Path) -> None:
    for name in ("whole", "half", "rest"):
        (tmp_path / name).mkdir()
    torch.manual_seed(0)
    whole = trained(tmp_path / "whole")
    torch.manual_seed(0)
    half = trained(tmp_path / "half", Stop())
    content = torch.load(tmp_path / "half" / "two.ckpt", weights_only=True)
    kinds = [set(v) for v in content["optimizer_states"][0]["state"].values()]
    assert {"momentum_buffer"} in kinds
    assert any("exp_avg" in kind for kind in kinds)
    rest = trained(tmp_path / "rest", resume=str(tmp_path / "half" / "two.ckpt"))
    moved = 0
    for (name, one), other, early in zip(
        whole.model.named_parameters(), rest.model.parameters(), half.model.parameters(), strict=True
    ):
        if "dropout" not in name:
            assert torch.equal(one, other), name
        moved += not torch.equal(one, early)
    assert moved > 10


def test_the_recipe_of_a_yaml_file() -> None:
    node = {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
        "schedule": {"_target_": "fss.lit.optim.poly"},
        "backbone_lr_factor": 0.1,
        "untrained": [],
        "optimizers": {
            "transformer": {
                "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-4, "weight_decay": 0.01},
                "schedule": {"_target_": "fss.lit.optim.constant"},
            }
        },
    }
    built = build_recipe(node)
    assert built.schedule(0.5) == 0.5**0.9
    assert built.further["transformer"].schedule is constant or built.further["transformer"].schedule(0.5) == 1
    assert isinstance(built.further["transformer"].optimizer([nn.Parameter(torch.ones(1))]), AdamW)
    for wrong, said in (
        ({"transformer": {"optimizer": {}}}, r"recipe\.optimizers\.transformer=.* is not allowed: give optimizer and"),
        (
            {
                "a": {
                    "optimizer": {"_target_": "torch.optim.SGD", "x": 1},
                    "schedule": {"_target_": "fss.lit.optim.poly"},
                }
            },
            r"options of recipe\.optimizers\.a\.optimizer cannot be used",
        ),
    ):
        with pytest.raises(FssError, match=said):
            build_recipe({**node, "optimizers": wrong})
