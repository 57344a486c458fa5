"""CheckResult and swapping modules."""

from __future__ import annotations

import pytest
from torch import nn

from fss.backbones.resnet import ResNet
from fss.errors import FssError
from fss.finetune.layers.surgery import check_stages, convolutions, find


def test_stages_are_sorted_and_unique() -> None:
    assert check_stages([4, 2, 2]) == (2, 4)
    assert check_stages([]) == ()


@pytest.mark.parametrize("stages", [[5], [-1], [2, 7]])
def test_unknown_stages_are_named(stages: list[int]) -> None:
    with pytest.raises(FssError, match=r"do not exist; stages are 0 \(stem\) to 4"):
        check_stages(stages)


def test_convolutions_by_stage_and_kernel() -> None:
    backbone = ResNet(18, width=2)
    assert [s.name for s in convolutions(backbone, [2])] == [
        "layer2.0.conv1",
        "layer2.0.conv2",
        "layer2.0.downsample.0",
        "layer2.1.conv1",
        "layer2.1.conv2",
    ]
    assert [s.name for s in convolutions(backbone, [2, 4], [1])] == ["layer2.0.downsample.0", "layer4.0.downsample.0"]
    assert [s.name for s in convolutions(backbone, [0])] == ["layer0.0"]
    assert len(convolutions(backbone, range(5))) == 20
    assert {s.stage for s in convolutions(backbone, range(5))} == {0, 1, 2, 3, 4}


def test_put_replaces_in_place_and_children_of_a_match_are_not_entered() -> None:
    backbone = ResNet(18, width=2)
    site = convolutions(backbone, [2], [1])[0]
    other = nn.Identity()
    site.put(other)
    assert backbone.layer2[0].downsample[0] is other
    assert site.module is other
    blocks = find(backbone, [1], lambda m: not isinstance(m, nn.BatchNorm2d))
    assert [s.name for s in blocks] == ["layer1.0", "layer1.1"]
