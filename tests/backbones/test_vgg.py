"""Stages, sizes and key names of VGG-16, and that it is torchvision's network but for the pooling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fss.backbones.vgg import VGG
from fss.backbones.weights import WeightsError, load_into
from fss.errors import FssError
from fss.types import StagedBackbone

FIRST = (0, 7, 14, 24, 34)  # methods.md 1.3: number of each stage's first layer in torchvision's features


def meta(width: int = 64) -> VGG:
    with torch.device("meta"):
        return VGG(width=width)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (473, [237, 119, 60, 30, 30]),
        (641, [321, 161, 81, 41, 41]),
        (417, [209, 105, 53, 27, 27]),
        (97, [49, 25, 13, 7, 7]),
    ],
)
def test_stage_sizes(size: int, sizes: list[int]) -> None:
    backbone = meta(width=2)
    outputs = backbone(torch.empty(1, 3, size, size, device="meta"))
    assert [tuple(o.shape[-2:]) for o in outputs] == [(s, s) for s in sizes]
    assert tuple(o.shape[1] for o in outputs) == backbone.channels == (2, 4, 8, 16, 16)
    assert isinstance(backbone, StagedBackbone)


def test_modules_are_those_of_the_release() -> None:
    """methods.md 1.3: convolutions at 0, 3 (6), batch norm at 1, 4 (7), a pooling at the end of all stages but one."""
    triple = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    for index, count in enumerate((2, 2, 3, 3, 3)):
        stage = meta().stage(index)
        assert isinstance(stage, nn.Sequential)
        assert [type(m) for m in stage] == triple * count + ([nn.MaxPool2d] if index < 4 else [])
        for module in stage:
            if isinstance(module, nn.Conv2d):
                assert (module.kernel_size, module.stride, module.padding) == ((3, 3), (1, 1), (1, 1))
                assert module.dilation == (1, 1)
                assert module.bias is not None
            if isinstance(module, nn.MaxPool2d):
                assert (module.kernel_size, module.stride, module.ceil_mode) == (2, 2, True)


def test_keys_and_shapes() -> None:
    """methods.md 8.2."""
    state = meta().state_dict()
    assert len(state) == 91
    shapes = {
        0: [(64, 3), (64, 64)],
        1: [(128, 64), (128, 128)],
        2: [(256, 128), (256, 256), (256, 256)],
        3: [(512, 256), (512, 512), (512, 512)],
        4: [(512, 512)] * 3,
    }
    expected: dict[str, tuple[int, ...]] = {}
    for stage, convs in shapes.items():
        for i, (c_out, c_in) in enumerate(convs):
            expected[f"layer{stage}.{3 * i}.weight"] = (c_out, c_in, 3, 3)
            expected[f"layer{stage}.{3 * i}.bias"] = (c_out,)
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                expected[f"layer{stage}.{3 * i + 1}.{leaf}"] = (c_out,)
            expected[f"layer{stage}.{3 * i + 1}.num_batches_tracked"] = ()
    assert {k: tuple(v.shape) for k, v in state.items()} == expected
    assert sum(p.numel() for p in meta().parameters()) == 14_723_136
    assert meta().channels == (64, 128, 256, 512, 512)


def published(seed: int = 9) -> dict[str, Tensor]:
    """A small network's weights under torchvision's names, with a classifier."""
    torch.manual_seed(seed)
    state = {}
    for key, value in VGG(width=4).state_dict().items():
        stage, number, leaf = key.split(".")
        state[f"features.{FIRST[int(stage[-1])] + int(number)}.{leaf}"] = value
    state["classifier.0.weight"] = torch.zeros(8, 32)
    return state


def test_published_names_load(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "vgg16_bn.pth")
    backbone = VGG(width=4)
    report = load_into(backbone, tmp_path / "vgg16_bn.pth")
    assert (report.loaded, report.missing, report.unused) == (91, [], ["classifier.0.weight"])
    torch.manual_seed(9)
    expected = VGG(width=4).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in backbone.state_dict().items())


def test_names_are_torchvisions() -> None:
    from torchvision.models import vgg16_bn

    with torch.device("meta"):
        theirs = {k: tuple(v.shape) for k, v in vgg16_bn(weights=None).features.state_dict().items()}
    ours = {}
    for key, value in meta().state_dict().items():
        stage, number, leaf = key.split(".")
        ours[f"{FIRST[int(stage[-1])] + int(number)}.{leaf}"] = tuple(value.shape)
    assert ours == theirs


def test_equals_torchvision_where_sizes_are_even() -> None:
    """Rounding up changes nothing at 32 pixels; the last pooling is left to torchvision's side."""
    from torchvision.models import vgg16_bn

    torch.manual_seed(0)
    theirs = vgg16_bn(weights=None).features.eval()
    ours = VGG().eval()
    state = {}
    for key in ours.state_dict():
        stage, number, leaf = key.split(".")
        state[key] = theirs.state_dict()[f"{FIRST[int(stage[-1])] + int(number)}.{leaf}"]
    ours.load_state_dict(state, strict=True)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours(x)[4], theirs[:43](x), atol=1e-6)
        assert theirs[:43](torch.randn(1, 3, 33, 33)).shape[-1] == 2
        assert ours(torch.randn(1, 3, 33, 33))[4].shape[-1] == 3


def test_weights_without_batch_norm_are_refused(tmp_path: Path) -> None:
    plain = {f"features.{i}.weight": torch.zeros(4, 4, 3, 3) for i in (0, 2, 5)}
    torch.save(plain, tmp_path / "vgg16.pth")
    with pytest.raises(WeightsError, match=r"(?s)vgg16\.pth does not fit.*vgg16_bn"):
        load_into(VGG(width=4), tmp_path / "vgg16.pth")


def test_other_depths_are_refused() -> None:
    with pytest.raises(FssError, match=r"depth=19 is not available for VGG; choose one of \[16\]"):
        VGG(depth=19)
