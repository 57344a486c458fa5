"""One contract over every backbone in conf/backbone, on torch's meta device: shapes without values."""

from __future__ import annotations

import copy
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from tests.contracts.classes import defined
from tests.contracts.strategies import CONF, node
from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.config.compose import choices, plain, prepare_hydra
from fss.errors import FssError
from fss.model.build import build_backbone, build_strategy
from fss.types import StagedBackbone

NAMES = choices("backbone")
WITH_TIMM = find_spec("timm") is not None
STRATEGIES = ("full", "svf", "lora", "adapter")  # plain layers, factors, values beside a layer, and a further block
SIZE = 65
"""Side of the images, or the nearest one above that a backbone takes."""


@cache
def group(name: str) -> dict[str, Any]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        found: dict[str, Any] = plain(compose("config", overrides=[f"backbone={name}"]))["backbone"]
    return found


def buildable() -> list[str]:
    return [n for n in NAMES if WITH_TIMM or "timm" not in group(n)["_target_"]]


@cache
def built(name: str) -> StagedModule:
    with torch.device("meta"):
        return build_backbone(group(name), pretrained=False)


@pytest.fixture(params=NAMES)
def backbone(request: pytest.FixtureRequest) -> StagedModule:
    if request.param not in buildable():
        pytest.skip("needs fss[timm]")
    return copy.deepcopy(built(request.param))


def test_every_backbone_has_a_yaml() -> None:
    classes = defined("backbones", lambda cls: issubclass(cls, StagedModule) and cls is not StagedModule)
    assert len(classes) >= 2
    lacking = sorted(classes.keys() - {group(n)["_target_"] for n in NAMES})
    assert lacking == [], "these classes have no yaml in conf/backbone"


def run(backbone: StagedModule) -> list[Tensor]:
    side = backbone.input.around(SIZE)[1]
    outputs: list[Tensor] = backbone(torch.empty(2, 3, side, side, device="meta"))
    return outputs


def test_five_stages_give_what_channels_says(backbone: StagedModule) -> None:
    assert isinstance(backbone, StagedBackbone)
    outputs = run(backbone)
    assert tuple(o.shape[1] for o in outputs) == backbone.channels
    sides = [backbone.input.around(SIZE)[1], *(o.shape[-1] for o in outputs)]
    assert all(o.shape == (2, o.shape[1], o.shape[-1], o.shape[-1]) for o in outputs)
    assert sides == sorted(sides, reverse=True), "a stage enlarges its input"
    assert sides[-1] > 1, "nothing is left of a small image"


def test_the_yaml_says_which_sides_the_class_allows() -> None:
    for name in buildable():
        spec = built(name).input
        assert group(name)["sizes"] in (None, [spec.step, spec.offset]), name
        assert spec.most is None or group(name)["sizes"] is None, name


def test_the_yaml_says_which_views_the_class_allows() -> None:
    for name in buildable():
        said = group(name).get("support_view")
        stepwise = built(name).stepwise
        assert (said == "masked_image") == (not stepwise and group(name)["sizes"] is not None), name


def test_stages_run_one_by_one_or_all_at_once(backbone: StagedModule) -> None:
    side = backbone.input.around(SIZE)[1]
    image = torch.empty(2, 3, side, side, device="meta")
    if backbone.stepwise:
        with pytest.raises(NotImplementedError, match="one by one"):
            backbone.maps(image, [4])
        assert backbone.stage(1)(backbone.stage(0)(image)).shape == run(backbone)[1].shape
        return
    with pytest.raises(NotImplementedError):
        backbone.stage(1)(backbone.stage(0)(image))
    maps, taps = backbone.maps(image, [2, 4], [4])
    assert sorted(maps) == [2, 4]
    assert [m.shape for m in taps[4]] == [maps[4].shape] * len(backbone.blocks(4))


def test_every_value_belongs_to_a_stage_and_to_the_state_dict(backbone: StagedModule) -> None:
    """Strategies reach stages, and checkpoints hold the state dict: nothing may lie beside them."""
    stages = tuple(f"layer{i}." for i in range(StagedModule.STAGES))
    assert not [k for k in backbone.state_dict() if not k.startswith(stages)]
    for index in range(StagedModule.STAGES):
        stage = backbone.stage(index)
        pooling = all(isinstance(layer, nn.MaxPool2d) for layer in stage.children())
        assert pooling or any(True for _ in stage.parameters()), f"stage {index} has no values"


def test_buffers_outside_the_state_dict_follow_from_the_options() -> None:
    """A checkpoint is rebuilt without them, see ``empty_model``: whatever the random numbers, they must be the same."""
    for name in buildable():
        hidden = {n for n, _ in built(name).named_buffers()} - built(name).state_dict().keys()
        if not hidden:
            continue
        first, second = (dict(build_backbone(group(name), pretrained=False).named_buffers()) for _ in range(2))
        assert not [n for n in hidden if not torch.equal(first[n], second[n])], name


def test_batch_norm_stays_in_evaluation_mode(backbone: StagedModule) -> None:
    backbone.norm_mode = "eval"
    backbone.eval().train()
    assert backbone.training
    assert not [n for n, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training]


def test_strategies_of_every_kind_can_be_injected(backbone: StagedModule) -> None:
    shapes = [o.shape for o in run(backbone)]
    for strategy in STRATEGIES:
        tuned = copy.deepcopy(backbone)
        if strategy == "adapter" and not backbone.stepwise:
            with pytest.raises(FssError, match="adapter"):
                build_strategy(node(strategy)).apply(tuned)
            continue
        words = ("finetune.memory=plain",) if strategy == "svf" else ()  # chains need values
        report = build_strategy(node(strategy, "finetune.stages=[2,4]", *words)).apply(tuned)
        assert report.plain_total == sum(p.numel() for p in backbone.parameters())
        assert report.trainable, f"finetune={strategy} finds nothing to train in stages 2 and 4"
        assert report.trainable == {n: p.numel() for n, p in tuned.named_parameters() if p.requires_grad}
        assert [o.shape for o in run(tuned)] == shapes
