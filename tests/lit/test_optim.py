"""Optimiser groups and schedules."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.lit.fabricate import Episodes, model, module, recipe, trainer
from torch.optim.lr_scheduler import LambdaLR

from fss.errors import FssError
from fss.finetune.freeze import Freeze
from fss.finetune.svf import SVF
from fss.lit import episodic
from fss.lit.callbacks.finetuning import BackboneFinetune
from fss.lit.optim import build_optimizer, constant, cosine, freeze_untrained, parameter_groups, poly
from fss.methods.bam import BAM
from fss.types import ParamGroup


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (constant, (1.0, 1.0, 1.0)),
        (cosine, (1.0, 0.5, 0.0)),
        (poly, (1.0, 0.5**0.9, 0.0)),
        (partial(poly, power=2.0), (1.0, 0.25, 0.0)),
    ],
)
def test_schedule_values(schedule: Any, values: tuple[float, float, float]) -> None:
    assert [schedule(p) for p in (0.0, 0.5, 1.0)] == pytest.approx(list(values), abs=1e-12)
    assert schedule(1.2) == pytest.approx(values[2]), "never below the end"


def test_cosine_in_between() -> None:
    assert cosine(0.25) == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_groups_and_factors() -> None:
    net = model()
    SVF().apply(net.backbone)
    groups = parameter_groups(net, recipe(backbone_lr_factor=0.1))
    assert [(g["name"], g["lr_factor"]) for g in groups] == [("backbone", 0.1), ("head", 1.0)]
    values = {id(p) for n, p in net.backbone.named_parameters() if n.endswith(".S")}
    assert {id(p) for p in groups[0]["params"]} == values
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in net.head.parameters()}
    optimizer, scheduler = build_optimizer(net, recipe(), steps=10)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.01, 0.1])
    assert [g["name"] for g in optimizer.param_groups] == ["backbone", "head"]
    assert isinstance(scheduler, LambdaLR)


def test_frozen_backbone_has_no_group() -> None:
    net = model()
    Freeze().apply(net.backbone)
    assert [g["name"] for g in parameter_groups(net, recipe())] == ["head"]


def test_a_heads_own_groups_keep_their_settings() -> None:
    net = model()
    Freeze().apply(net.backbone)
    first, *rest = net.head.parameters()
    groups = [ParamGroup("slow", [first], 0.5, weight_decay=0.0), ParamGroup("rest", rest), ParamGroup("none", [])]
    net.head.param_groups = lambda: groups  # type: ignore[method-assign]
    optimizer, _ = build_optimizer(net, recipe(), 10)
    found = [(g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups]
    assert found == [("slow", pytest.approx(0.05), 0.0, 1), ("rest", pytest.approx(0.1), 1e-2, len(rest))]


def test_untrained_parts_are_frozen() -> None:
    net = model()
    freeze_untrained(net.head, ["down_query"])
    assert [n for n, p in net.head.named_parameters() if not p.requires_grad] == ["down_query.0.weight"]
    Freeze().apply(net.backbone)
    (group,) = parameter_groups(net, recipe())
    assert id(net.head.down_query[0].weight) not in {id(p) for p in group["params"]}


def test_an_untrained_part_that_a_head_can_do_without() -> None:
    """One support is not weighed."""
    one, two = (BAM((4, 4, 8, 8, 8), width=4, shot=shot) for shot in (1, 2))
    for head in (one, two):
        freeze_untrained(head, ["kshot_rw"])
    assert one.kshot_rw is None
    assert {n.split(".")[0] for n, p in two.named_parameters() if not p.requires_grad} == {"kshot_rw"}


def test_unknown_untrained_part_is_named() -> None:
    with pytest.raises(FssError, match=r"'down_qery', but the head has \[.*'down_query'"):
        freeze_untrained(model().head, ["down_qery"])


def test_nothing_to_train() -> None:
    net = model()
    Freeze().apply(net.backbone)
    net.head.requires_grad_(False)
    with pytest.raises(FssError, match="nothing trains"):
        parameter_groups(net, recipe())


def test_weight_decay_reaches_only_what_trains() -> None:
    """One step without any gradient signal: what trains shrinks by lr * decay, everything else stays."""
    net = model()
    SVF().apply(net.backbone)
    freeze_untrained(net.head, ["down_query"])
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    optimizer, _ = build_optimizer(net, recipe(), 10)
    for p in net.parameters():
        if p.requires_grad:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, parameter in net.named_parameters():
        factor = 1.0
        if parameter.requires_grad:
            factor = 1 - 1e-2 * (0.01 if name.startswith("backbone.") else 0.1)
        assert torch.allclose(parameter, before[name] * factor, rtol=1e-6, atol=0), name
        assert parameter.requires_grad == (name.endswith(".S") or name.startswith("head.")) or "down_query" in name


class RateLog(pl.Callback):
    """The rates with which each step was taken."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.rates.append([g["lr"] for g in trainer.optimizers[0].param_groups])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_schedule_is_built_once_and_spans_all_steps(
    accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    def count(net: Any, how: Any, steps: int) -> Any:
        built.append(steps)
        return build_optimizer(net, how, steps)

    monkeypatch.setattr(episodic, "build_optimizer", count)
    log = RateLog()
    run = trainer(
        tmp_path,
        BackboneFinetune(SVF()),
        log,
        epochs=3,
        accumulate_grad_batches=accumulate,
        limit_val_batches=0,
    )
    run.fit(module(), datamodule=Episodes(4))
    total = 12 // accumulate
    assert built == [total]
    assert run.global_step == total
    expected = [0.1 * (1 + math.cos(math.pi * (n // accumulate) / total)) / 2 for n in range(12)]
    assert [r[1] for r in log.rates] == pytest.approx(expected)
    assert [r[0] for r in log.rates] == pytest.approx([0.1 * e for e in expected])
    assert run.optimizers[0].param_groups[1]["lr"] == pytest.approx(0.0, abs=1e-12)
