"""Trainable values of every strategy, layer by layer, written out from the architecture alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.contracts.strategies import NAMES, make, tiny

from fss.backbones.resnet import ResNet
from fss.backbones.vgg import VGG
from fss.checkpoints.tuned import save_tuned
from fss.finetune.layers import SVFConv2d
from fss.finetune.svf import SVF

Conv = tuple[str, int, int, int]  # name, out, in, kernel size


def resnet18_convs(width: int) -> dict[int, list[Conv]]:
    convs: dict[int, list[Conv]] = {0: [("layer0.0", width, 3, 7)]}
    c_in = width
    for stage in range(1, 5):
        planes = width * 2 ** (stage - 1)
        convs[stage] = []
        for block in range(2):
            prefix = f"layer{stage}.{block}"
            convs[stage].append((f"{prefix}.conv1", planes, c_in, 3))
            convs[stage].append((f"{prefix}.conv2", planes, planes, 3))
            if c_in != planes:
                convs[stage].append((f"{prefix}.downsample.0", planes, c_in, 1))
            c_in = planes
    return convs


def resnet50_convs(counts: tuple[int, ...] = (3, 4, 6, 3)) -> dict[int, list[Conv]]:
    convs: dict[int, list[Conv]] = {0: [("layer0.0", 64, 3, 3), ("layer0.3", 64, 64, 3), ("layer0.6", 128, 64, 3)]}
    c_in = 128
    for stage, blocks in enumerate(counts, start=1):
        planes = 64 * 2 ** (stage - 1)
        convs[stage] = []
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            convs[stage].append((f"{prefix}.conv1", planes, c_in, 1))
            convs[stage].append((f"{prefix}.conv2", planes, planes, 3))
            convs[stage].append((f"{prefix}.conv3", 4 * planes, planes, 1))
            if block == 0:
                convs[stage].append((f"{prefix}.downsample.0", 4 * planes, c_in, 1))
            c_in = 4 * planes
    return convs


def vgg16_convs() -> dict[int, list[Conv]]:
    convs: dict[int, list[Conv]] = {}
    c_in = 3
    for stage, (c_out, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        convs[stage] = [(f"layer{stage}.{3 * i}", c_out, c_in if i == 0 else c_out, 3) for i in range(count)]
        c_in = c_out
    return convs


def svf_counts(convs: dict[int, list[Conv]]) -> dict[str, int]:
    return {f"{n}.S": min(o, i * k * k) for s in (2, 3, 4) for n, o, i, k in convs[s]}


def full_counts(convs: dict[int, list[Conv]]) -> dict[str, int]:
    return {f"{n}.weight": o * i * k * k for s in (2, 3, 4) for n, o, i, k in convs[s]}


EXPECTED: dict[str, Callable[[dict[int, list[Conv]]], dict[str, int]]] = {
    "freeze": lambda convs: {},
    "full": full_counts,
    "svf": svf_counts,
}


@pytest.fixture
def resnet50() -> ResNet:
    """The real network without values: injection is shape arithmetic on the meta device."""
    with torch.device("meta"):
        return ResNet(50, "deep")


def test_every_strategy_has_an_expected_count() -> None:
    assert set(EXPECTED) == set(NAMES), "add the closed form of the new strategy to EXPECTED"


@pytest.fixture
def vgg16() -> VGG:
    with torch.device("meta"):
        return VGG()


@pytest.mark.parametrize("name", NAMES)
def test_trainable_counts_layer_by_layer(name: str, resnet50: ResNet) -> None:
    assert make(name).apply(tiny()).trainable == EXPECTED[name](resnet18_convs(8))
    assert make(name).apply(resnet50).trainable == EXPECTED[name](resnet50_convs())


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
    assert report.trainable == svf_counts(vgg16_convs())
    ranks = {n: m.S.numel() for n, m in vgg16.named_modules() if isinstance(m, SVFConv2d)}
    for stage, expected in RELEASED_VGG.items():
        own = [r for n, r in ranks.items() if n.startswith(f"layer{stage}.")]
        assert (len(own), sum(own)) == (expected if rounding == 4 or stage >= 2 else (0, 0))
    if total is None:
        assert report.notes == []
    else:
        assert report.total == total
        assert report.notes == ["layer0.0: rank 27 truncated to 24"]


def test_full_trains_the_biases_of_vgg16(vgg16: VGG) -> None:
    biases = {f"{n}.bias": o for s in (2, 3, 4) for n, o, _, _ in vgg16_convs()[s]}
    assert make("full").apply(vgg16).trainable == full_counts(vgg16_convs()) | biases


def test_resnet101_counts() -> None:
    """methods.md 7.3: 1,792 + 18,176 + 5,632."""
    with torch.device("meta"):
        backbone = ResNet(101, "deep")
    report = SVF(rank_rounding=4).apply(backbone)
    assert report.trainable == svf_counts(resnet50_convs((3, 4, 23, 3)))
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
    assert ranks == {n: min(o, i * k * k) // 4 * 4 for convs in resnet50_convs().values() for n, o, i, k in convs}


def test_decomposition_adds_the_size_of_the_factors(resnet50: ResNet) -> None:
    convs = resnet50_convs()
    report = SVF().apply(resnet50)
    grown = 0
    for stage in (2, 3, 4):
        for _, o, i, k in convs[stage]:
            rank = min(o, i * k * k)
            grown += o * rank + rank + rank * i * k * k - o * i * k * k
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
    assert set(report.trainable) == set(svf_counts(resnet18_convs(8)))
    notes = SVF(stages=(2,), rank_rounding=16).apply(tiny()).notes
    assert notes[0] == "layer0.0: rank 8 truncated to 1"
    assert backbone.layer0[0].V.shape == (8, 3, 7, 7)
