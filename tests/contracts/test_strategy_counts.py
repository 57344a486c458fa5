"""Trainable values of every strategy, layer by layer, written out from the architecture alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.contracts import closed_forms
from tests.contracts.closed_forms import NETWORKS
from tests.contracts.declared import CONVOLUTIONAL, KINDS, closed_form, make
from tests.contracts.strategies import NAMES, tiny

from fss.backbones.resnet import ResNet
from fss.backbones.staged import StagedModule
from fss.backbones.vgg import VGG
from fss.checkpoints.tuned import save_tuned
from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.layers.nothing_to_train import NothingToTrainError
from fss.finetune.svf import SVF


@pytest.fixture
def resnet50() -> ResNet:
    """The real network without values: injection is shape arithmetic on the meta device."""
    with torch.device("meta"):
        return ResNet(50, "deep")


@pytest.fixture
def vgg16() -> VGG:
    with torch.device("meta"):
        return VGG()


BUILT: dict[str, Callable[[], StagedModule]] = {
    "resnet18": tiny,
    "resnet50": lambda: ResNet(50, "deep"),
    "vgg16": VGG,
    "vgg16-small": lambda: tiny(kind="vgg16"),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_trainable_counts_layer_by_layer(name: str, network: str) -> None:
    expected = closed_form(name)(NETWORKS[network]())
    with torch.device("meta"):
        backbone = BUILT[network]()
    if not set(KINDS[name]) & set(CONVOLUTIONAL):
        assert expected == {}
        with pytest.raises(NothingToTrainError):
            make(name).apply(backbone)
        return
    assert make(name).apply(backbone).trainable == expected


# ResNet-50 and VGG-16, added up by hand: channels of all batch norms are 256 + 1,408 + 3,584 + 10,240 + 11,264 and
# 128 + 256 + 768 + 1,536 + 1,536; full is the backbone (23,631,808; 14,723,136) less batch norm and stages 0 and 1.
TOTALS = {
    "adapter": (2_790_080, 304_864),  # C^2 / 2 + C + C / 4 for the channels C of stages 1 to 4
    "bias": (26_752, 8_448),
    "bn": (53_504, 8_448),
    "freeze": (0, 0),
    "full": (23_232_512, 14_454_528),
    "part": (23_232_512, 14_454_528),
    "svf": (12_544, 3_840),
    "svf_bn": (12_544 + 53_504, 3_840 + 8_448),
}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_that_were_added_up_by_hand(name: str, resnet50: ResNet, vgg16: VGG) -> None:
    assert tuple(make(name).apply(b).trainable_total for b in (resnet50, vgg16)) == TOTALS[name]


# methods.md 7.3: stage -> (convolutions, sum of ranks with the release's rounding)
RELEASED = {0: (3, 216), 1: (10, 704), 2: (13, 1792), 3: (19, 5120), 4: (10, 5632)}
# methods.md 7.2: rank of the block's convolutions and of its downsample convolution
RANKS = {1: (64, 128), 2: (128, 256), 3: (256, 512), 4: (512, 1024)}


@pytest.mark.parametrize(("rounding", "total"), [(1, None), (4, 28_831_264)])
def test_resnet50_counts_of_the_release(rounding: int, total: int | None, resnet50: ResNet) -> None:
    report = SVF(rank_rounding=rounding).apply(resnet50)
    assert report.plain_total == 23_631_808
    assert report.trainable_total == 12_544
    for stage, expected in ((2, 1792), (3, 5120), (4, 5632)):
        own = {n: v for n, v in report.trainable.items() if n.startswith(f"layer{stage}.")}
        assert (len(own), sum(own.values())) == (RELEASED[stage][0], expected)
        for name, value in own.items():
            assert value == RANKS[stage]["downsample" in name], name
    if total is None:
        assert report.notes == []
    else:
        assert report.total == total
        assert report.notes == ["layer0.0: rank 27 truncated to 24"]


# methods.md 7.3: stage -> (convolutions, sum of ranks with the release's rounding)
RELEASED_VGG = {0: (2, 88), 1: (2, 256), 2: (3, 768), 3: (3, 1536), 4: (3, 1536)}


@pytest.mark.parametrize(("rounding", "total"), [(1, None), (4, 16_534_112)])
def test_vgg16_counts_of_the_release(rounding: int, total: int | None, vgg16: VGG) -> None:
    report = SVF(rank_rounding=rounding).apply(vgg16)
    assert report.plain_total == 14_723_136
    assert report.trainable_total == 3_840
    assert report.trainable == closed_form("svf")(closed_forms.vgg16())
    ranks = {n: m.S.numel() for n, m in vgg16.named_modules() if isinstance(m, SVFConv2d)}
    for stage, expected in RELEASED_VGG.items():
        own = [r for n, r in ranks.items() if n.startswith(f"layer{stage}.")]
        assert (len(own), sum(own)) == (expected if rounding == 4 or stage >= 2 else (0, 0))
    if total is None:
        assert report.notes == []
    else:
        assert report.total == total
        assert report.notes == ["layer0.0: rank 27 truncated to 24"]


def test_resnet101_counts() -> None:
    """methods.md 7.3: 1,792 + 18,176 + 5,632."""
    with torch.device("meta"):
        backbone = ResNet(101, "deep")
    report = SVF(rank_rounding=4).apply(backbone)
    assert report.trainable == closed_form("svf")(closed_forms.resnet50((3, 4, 23, 3)))
    assert report.trainable_total == 25_600
    assert report.notes == ["layer0.0: rank 27 truncated to 24"]


def test_every_rank_of_the_release(resnet50: ResNet) -> None:
    SVF(rank_rounding=4).apply(resnet50)
    ranks = {n: m.S.numel() for n, m in resnet50.named_modules() if isinstance(m, SVFConv2d)}
    assert len(ranks) == 55
    for stage, (count, total) in RELEASED.items():
        own = [r for n, r in ranks.items() if n.startswith(f"layer{stage}.")]
        assert (len(own), sum(own)) == (count, total)
    assert [ranks[f"layer0.{i}"] for i in (0, 3, 6)] == [24, 64, 128]
    assert ranks == {c.name: c.rank // 4 * 4 for c in closed_forms.convs(closed_forms.resnet50(), range(5))}


def test_decomposition_adds_the_size_of_the_factors(resnet50: ResNet) -> None:
    report = SVF().apply(resnet50)
    grown = 0
    for c in closed_forms.convs(closed_forms.resnet50(), (2, 3, 4)):
        grown += c.out * c.rank + c.rank + c.rank * c.columns - c.out * c.columns
    assert report.total == 23_631_808 + grown


def test_tuned_file_of_resnet50_is_small(resnet50: ResNet, tmp_path: Path) -> None:
    SVF().apply(resnet50)
    backbone = resnet50.to_empty(device="cpu")
    save_tuned(tmp_path / "tuned.pt", backbone, {"finetune": "svf"})
    size = (tmp_path / "tuned.pt").stat().st_size
    assert 4 * 12_544 < size < 100_000


def test_rounding_decomposes_frozen_stages_too() -> None:
    backbone = tiny()
    report = SVF(rank_rounding=4).apply(backbone)
    assert report.notes == []  # all ranks of this small network are multiples of 4
    assert isinstance(backbone.layer0[0], SVFConv2d)
    assert set(report.trainable) == set(closed_form("svf")(closed_forms.resnet18(8)))
    notes = SVF(stages=(2,), rank_rounding=16).apply(tiny()).notes
    assert notes[0] == "layer0.0: rank 8 truncated to 1"
    assert backbone.layer0[0].V.shape == (8, 3, 7, 7)
