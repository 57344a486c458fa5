"""Strategies on top of each other are refused; the same one again does nothing."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from fss.backbones.resnet import ResNet
from fss.errors import FssError
from fss.finetune import apply, merge
from fss.finetune.adapter import Adapter
from fss.finetune.base import Strategy
from fss.finetune.bn import BN
from fss.finetune.composed import Composed
from fss.finetune.freeze import Freeze
from fss.finetune.full import Full
from fss.finetune.layers.tuned import TunedLayer
from fss.finetune.lora import LoRA
from fss.finetune.part import Part
from fss.finetune.svf import SVF
from fss.finetune.svf_bn import SVFBN
from fss.finetune.svf_rotated import SVFRotated
from fss.types import StagedBackbone


def backbone() -> ResNet:
    torch.manual_seed(0)
    return ResNet(18, width=2)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Sequential(nn.Conv2d(4, 4, 1)))


PAIRS: list[tuple[Callable[[], Strategy], Callable[[], Strategy]]] = [
    (SVF, LoRA),
    (LoRA, SVF),
    (SVF, lambda: SVF((3, 4))),
    (SVF, lambda: SVF(factors=("U", "S"))),
    (SVF, lambda: SVF(rank_rounding=4)),
    (SVF, SVFBN),
    (SVFBN, lambda: SVFBN(affine=("bias",))),
    (LoRA, lambda: LoRA(rank=2)),
    (Full, BN),
    (SVF, Adapter),
    (SVF, Freeze),
    (lambda: SVFRotated(train_s=False), SVF),
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_another_strategy_is_refused_until_the_first_is_merged(
    first: Callable[[], Strategy], second: Callable[[], Strategy]
) -> None:
    net = backbone()
    first().apply(net)
    state, modules = list(net.state_dict()), list(net.modules())
    trains = {n for n, p in net.named_parameters() if p.requires_grad}
    for one in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        with pytest.raises(FssError, match=rf"finetune={second().name} \(.*\) cannot be applied on top of finetune="):
            second().apply(one)
    assert list(net.modules()) == modules
    assert list(net.state_dict()) == state
    assert {n for n, p in net.named_parameters() if p.requires_grad} == trains
    first().merge(net)
    assert second().apply(net).strategy == second().name


@pytest.mark.parametrize("first", [SVF, SVFBN, LoRA, Full, Freeze, Adapter])
def test_the_same_strategy_is_the_same_wherever_it_comes_from(first: Callable[[], Strategy]) -> None:
    net = backbone()
    report = first().apply(net)
    assert first().apply(net).trainable == report.trainable
    assert "_fss_applied" not in "".join(net.state_dict())


def test_a_frozen_backbone_may_be_tuned() -> None:
    """There is nothing that the second strategy could take away."""
    net = backbone()
    Freeze().apply(net)
    assert SVF().apply(net).trainable_total > 0
    with pytest.raises(FssError, match=r"finetune=freeze .* on top of finetune=svf"):
        Freeze().apply(net)


def test_the_memory_rule_may_change() -> None:
    net = backbone()
    SVF(memory="plain").apply(net)
    SVF(memory="least").apply(net)


def test_a_strategy_that_keeps_a_state_is_still_the_same() -> None:
    class Counting(SVF):
        steps = 0

        def after_step(self, backbone: StagedBackbone) -> None:
            self.steps = self.steps + 1

    net, strategy = backbone(), Counting()
    strategy.apply(net)
    strategy.after_step(net)
    strategy.apply(net)


def test_other_stages_of_any_module_are_refused() -> None:
    net = model()
    apply(net, SVF((4,)), {4: ["0"]})
    apply(net, SVF((4,)), {4: ["0"]})
    with pytest.raises(
        FssError, match=r"stages \{4: \('1',\)\}\) cannot be applied on top of .*stages \{4: \('0',\)\}"
    ):
        apply(net, SVF((4,)), {4: ["1"]})
    merge(net, SVF((4,)), {4: ["0"]})
    assert apply(net, SVF((4,)), {4: ["1"]}).trainable == {"1.0.S": 4}


def test_a_module_with_a_tuned_part_is_refused() -> None:
    net = model()
    apply(net[0], SVF())  # type: ignore[arg-type]
    with pytest.raises(FssError, match=r"finetune=lora cannot be applied.*a part of this module.*0\.0.*frozen"):
        apply(net, LoRA())
    merge(net[0], SVF())  # type: ignore[arg-type]
    assert apply(net, LoRA()).trainable_total > 0


def test_a_half_applied_strategy_is_undone() -> None:
    """The second part fails after the first one has replaced layers."""

    class Late(Part):
        name = "late"

        def swap(self, backbone: StagedBackbone) -> list[str]:
            return []

        def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
            raise FssError("too late")

    class Both(Composed):
        name = "both"
        parts = (SVF(), Late())

    net = backbone()
    classes, state = [type(m) for m in net.modules()], list(net.state_dict())
    with pytest.raises(FssError, match="too late"):
        Both().apply(net)
    assert [type(m) for m in net.modules()] == classes
    assert list(net.state_dict()) == state
    assert all(p.requires_grad for p in net.parameters())
    assert not [m for m in net.modules() if isinstance(m, TunedLayer)]
    assert SVF().apply(net).trainable_total > 0


def test_a_classifier_that_trains_is_noted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    report = apply(Net(), SVF())
    assert report.notes == [
        "no stages were given, so the classifier fc of Net trains too: 5 of 13 values; build the model without it "
        "(timm: num_classes=0), or give stages"
    ]
    assert apply(Net(), SVF(), {4: ["body", "fc"]}).notes == []
    assert apply(Net(), SVF(), {4: ["body"]}).notes == []
