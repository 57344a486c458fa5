"""What a tap is: the output of a block, before its last ReLU if the block ends in one."""

from __future__ import annotations

import pytest
import torch
from tests.methods.fakes import inputs, tiny
from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.backbones.vgg import VGG
from fss.model.features import extract
from fss.types import FeatureSpec


class Tapped(StagedModule):
    """Blocks that end in a ReLU, in another activation, and in a sum."""

    def __init__(self) -> None:
        super().__init__((4, 4, 4, 4, 4))
        self.layer0 = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(Ends(nn.ReLU(inplace=True)), Ends(nn.GELU()), Ends(nn.ReLU(), residual=True))


class Ends(nn.Module):
    """ReLU, convolution, activation, maybe a residual; the names of its layers say nothing."""

    def __init__(self, act: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.c, self.residual = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), act, residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(self.b(self.a(x)))
        return y + x if self.residual else y


def test_a_tap_is_before_the_last_relu_only_if_the_block_ends_in_it() -> None:
    torch.manual_seed(0)
    backbone = Tapped()
    query, supports, labels = inputs(2, 1)
    with torch.no_grad():
        found = extract(backbone, FeatureSpec(stages=(1,), taps=(1,)), query, supports, labels)
        x = backbone.layer0(query)
        first = backbone.layer1[0].b(x.relu())
        second = backbone.layer1[1](first.relu())
        third = backbone.layer1[2](second)
    for tap, expected in zip(found.query_taps[1], (first, second, third), strict=True):
        torch.testing.assert_close(tap, expected)
    assert torch.equal(found.query_taps[1][2], found.query[1])


def test_taps_of_vgg_are_its_convolutions_before_their_activation() -> None:
    torch.manual_seed(0)
    backbone = VGG(width=4).eval()
    backbone.norm_mode = "eval"
    query, supports, labels = inputs(1, 1)
    with torch.no_grad():
        found = extract(backbone, FeatureSpec(stages=(), taps=(2, 4)), query, supports, labels)
        x = backbone.layer1(backbone.layer0(query))
        for index in (2, 3, 4):
            expected = []
            for layer in backbone.stage(index).children():
                if isinstance(layer, nn.ReLU):
                    expected.append(x.clone())
                x = layer(x)
            if index == 3:
                continue
            assert len(expected) == 3
            for tap, own in zip(found.query_taps[index], expected, strict=True):
                torch.testing.assert_close(tap, own)
    assert found.query == {}


def test_a_block_that_ran_without_its_relu_has_no_tap() -> None:
    backbone = tiny()
    block = backbone.layer2[1]
    block.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="BasicBlock ran without calling its ReLU"):
        extract(backbone, FeatureSpec(stages=(), taps=(2,)), *inputs())


class ChannelsLast(Tapped):
    """Its blocks give channels last, as those of Swin."""

    def as_map(self, output: Tensor) -> Tensor:
        return output.permute(0, 3, 1, 2)


def test_blocks_with_channels_last_give_maps() -> None:
    found = extract(ChannelsLast(), FeatureSpec(stages=(1,), taps=(1,)), *inputs(2, 1, size=9))
    assert [tap.shape for tap in found.query_taps[1]] == [(2, 9, 4, 9)] * 3
    assert [tap.shape for tap in found.support_taps[1]] == [(2, 1, 9, 4, 9)] * 3
