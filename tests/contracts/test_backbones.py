"""One contract over every backbone in conf/backbone, on torch's meta device: shapes without values."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from tests.contracts.classes import defined
from tests.contracts.strategies import CONF, node
from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.config.compose import choices, plain, prepare_hydra
from fss.model.build import build_backbone, build_strategy
from fss.types import StagedBackbone

NAMES = choices("backbone")
STRATEGIES = ("full", "svf", "lora", "adapter")  # plain layers, factors, values beside a layer, and a further block
SIZE = 65


@cache
def group(name: str) -> dict[str, Any]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        found: dict[str, Any] = plain(compose("config", overrides=[f"backbone={name}"]))["backbone"]
    return found


@cache
def built(name: str) -> StagedModule:
    with torch.device("meta"):
        return build_backbone(group(name), pretrained=False)


@pytest.fixture(params=NAMES)
def backbone(request: pytest.FixtureRequest) -> StagedModule:
    return copy.deepcopy(built(request.param))


def test_every_backbone_has_a_yaml() -> None:
    classes = defined("backbones", lambda cls: issubclass(cls, StagedModule) and cls is not StagedModule)
    assert len(classes) >= 2
    lacking = sorted(classes.keys() - {group(n)["_target_"] for n in NAMES})
    assert lacking == [], "these classes have no yaml in conf/backbone"


def run(backbone: StagedModule) -> list[Tensor]:
    outputs: list[Tensor] = backbone(torch.empty(2, 3, SIZE, SIZE, device="meta"))
    return outputs


def test_five_stages_give_what_channels_says(backbone: StagedModule) -> None:
    assert isinstance(backbone, StagedBackbone)
    outputs = run(backbone)
    assert tuple(o.shape[1] for o in outputs) == backbone.channels
    sides = [SIZE, *(o.shape[-1] for o in outputs)]
    assert all(o.shape == (2, o.shape[1], o.shape[-1], o.shape[-1]) for o in outputs)
    assert sides == sorted(sides, reverse=True), "a stage enlarges its input"
    assert sides[-1] > 1, "nothing is left of a small image"


def test_the_yaml_says_which_sides_the_class_allows() -> None:
    for name in NAMES:
        spec = built(name).input
        assert group(name)["sizes"] in (None, [spec.step, spec.offset]), name


def test_every_value_belongs_to_a_stage_and_to_the_state_dict(backbone: StagedModule) -> None:
    """Strategies reach stages, and checkpoints hold the state dict: nothing may lie beside them."""
    stages = tuple(f"layer{i}." for i in range(StagedModule.STAGES))
    assert not [k for k in backbone.state_dict() if not k.startswith(stages)]
    assert not {n for n, _ in backbone.named_buffers()} - backbone.state_dict().keys()
    for index in range(StagedModule.STAGES):
        assert any(True for _ in backbone.stage(index).parameters()), f"stage {index} has no values"


def test_batch_norm_stays_in_evaluation_mode(backbone: StagedModule) -> None:
    backbone.norm_mode = "eval"
    backbone.eval().train()
    assert backbone.training
    assert not [n for n, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training]


def test_strategies_of_every_kind_can_be_injected(backbone: StagedModule) -> None:
    shapes = [o.shape for o in run(backbone)]
    for strategy in STRATEGIES:
        tuned = copy.deepcopy(backbone)
        report = build_strategy(node(strategy, "finetune.stages=[2,4]")).apply(tuned)
        assert report.plain_total == sum(p.numel() for p in backbone.parameters())
        assert report.trainable, f"finetune={strategy} finds nothing to train in stages 2 and 4"
        assert report.trainable == {n: p.numel() for n, p in tuned.named_parameters() if p.requires_grad}
        assert [o.shape for o in run(tuned)] == shapes
