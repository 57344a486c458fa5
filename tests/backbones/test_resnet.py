"""Stages, sizes, key names and the two released dilation variants."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.backbones.resnet import ResNet
from fss.errors import FssError
from fss.types import StagedBackbone


def meta(depth: int = 50, stem: str = "deep", dilation: str = "torchvision", width: int = 64) -> ResNet:
    with torch.device("meta"):
        return ResNet(depth, stem, dilation, width)  # type: ignore[arg-type]


def geometry(backbone: nn.Module) -> dict[str, tuple[int, int, int, int]]:
    """Name -> (kernel, stride, dilation, padding) of every convolution."""
    found = {}
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            facts = (module.kernel_size, module.stride, module.dilation, module.padding)
            assert all(a == b for a, b in facts), name
            assert module.bias is None
            found[name] = tuple(f[0] for f in facts)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("stem", ["deep", "torchvision"])
@pytest.mark.parametrize("depth", [18, 50, 101])
@pytest.mark.parametrize("dilation", ["uniform", "torchvision"])
@pytest.mark.parametrize(("size", "early", "late"), [(473, 119, 60), (641, 161, 81), (417, 105, 53)])
def test_stage_sizes(depth: int, stem: str, dilation: str, size: int, early: int, late: int) -> None:
    backbone = meta(depth, stem, dilation, width=4)
    outputs = backbone(torch.empty(1, 3, size, size, device="meta"))
    assert [tuple(o.shape[-2:]) for o in outputs] == [(early, early)] * 2 + [(late, late)] * 3
    assert tuple(o.shape[1] for o in outputs) == backbone.channels


def test_channels() -> None:
    assert meta().channels == (128, 256, 512, 1024, 2048)
    assert meta(stem="torchvision").channels == (64, 256, 512, 1024, 2048)
    assert meta(18, "torchvision").channels == (64, 64, 128, 256, 512)
    assert meta(18, "torchvision", width=8).channels == (8, 8, 16, 32, 64)


def test_stages_one_by_one_equal_forward() -> None:
    torch.manual_seed(0)
    backbone = ResNet(18, width=4).eval()
    x = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        outputs = backbone(x)
        for index in range(5):
            x = backbone.stage(index)(x)
            assert torch.equal(x, outputs[index])
    assert isinstance(backbone, StagedBackbone)


@pytest.mark.parametrize("index", [-1, 5])
def test_unknown_stage(index: int) -> None:
    with pytest.raises(FssError, match=rf"stage {index} does not exist.*0 \(stem\) to 4"):
        meta().stage(index)


# methods.md 1.2: (stride, dilation, padding) of conv2 in the first and the other blocks of stages 3 and 4.
TABLE = {
    "uniform": {3: ((1, 2, 2), (1, 2, 2)), 4: ((1, 4, 4), (1, 4, 4))},
    "torchvision": {3: ((1, 1, 1), (1, 2, 2)), 4: ((1, 2, 2), (1, 4, 4))},
    "none": {3: ((2, 1, 1), (1, 1, 1)), 4: ((2, 1, 1), (1, 1, 1))},
}


@pytest.mark.parametrize("dilation", TABLE)
def test_stride_and_dilation_table(dilation: str) -> None:
    found = geometry(meta(dilation=dilation))
    blocks = {1: 3, 2: 4, 3: 6, 4: 3}
    expected = {"layer0.0": (3, 2, 1, 1), "layer0.3": (3, 1, 1, 1), "layer0.6": (3, 1, 1, 1)}
    for stage, count in blocks.items():
        plain = ((1 if stage == 1 else 2, 1, 1), (1, 1, 1))
        first, rest = TABLE[dilation].get(stage, plain)
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            expected[f"{prefix}.conv1"] = expected[f"{prefix}.conv3"] = (1, 1, 1, 0)
            expected[f"{prefix}.conv2"] = (3, *(first if block == 0 else rest))
        expected[f"layer{stage}.0.downsample.0"] = (1, first[0], 1, 0)
    assert found == expected


@pytest.mark.parametrize(("depth", "differ"), [(d, {"layer3.0.conv2", "layer4.0.conv2"}) for d in (50, 101)])
def test_the_variants_differ_in_exactly_two_convolutions(depth: int, differ: set[str]) -> None:
    one, other = geometry(meta(depth, dilation="uniform")), geometry(meta(depth, dilation="torchvision"))
    assert {n for n in one if one[n] != other[n]} == differ
    assert one["layer4.0.conv2"] == (3, 1, 4, 4)
    assert other["layer4.0.conv2"] == (3, 1, 2, 2)


def test_basic_blocks_are_dilated_in_both_convolutions() -> None:
    found = geometry(meta(18, "torchvision", "torchvision"))
    assert found["layer4.0.conv1"] == found["layer4.0.conv2"] == (3, 1, 2, 2)
    assert found["layer4.1.conv1"] == found["layer4.1.conv2"] == (3, 1, 4, 4)
    assert found["layer2.0.conv1"] == (3, 2, 1, 1)


def test_keys_and_shapes_of_the_deep_stem() -> None:
    """methods.md 8.1."""
    state = meta().state_dict()
    assert len(state) == 330
    expected = {
        "layer0.0.weight": (64, 3, 3, 3),
        "layer0.3.weight": (64, 64, 3, 3),
        "layer0.6.weight": (128, 64, 3, 3),
        "layer0.1.running_mean": (64,),
        "layer0.4.running_var": (64,),
        "layer0.7.bias": (128,),
        "layer1.0.conv1.weight": (64, 128, 1, 1),
        "layer1.2.conv1.weight": (64, 256, 1, 1),
        "layer1.0.downsample.0.weight": (256, 128, 1, 1),
        "layer1.0.downsample.1.weight": (256,),
        "layer2.3.conv2.weight": (128, 128, 3, 3),
        "layer2.0.downsample.0.weight": (512, 256, 1, 1),
        "layer3.5.conv3.weight": (1024, 256, 1, 1),
        "layer3.0.conv1.weight": (256, 512, 1, 1),
        "layer4.2.conv2.weight": (512, 512, 3, 3),
        "layer4.0.downsample.1.num_batches_tracked": (),
    }
    assert {k: tuple(state[k].shape) for k in expected} == expected
    assert sum(p.numel() for p in meta().parameters()) == 23_631_808


def test_stem_modules_of_the_release() -> None:
    kinds = [type(m) for m in meta().layer0]
    triple = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds == [*triple * 3, nn.MaxPool2d]
    assert [type(m) for m in meta(stem="torchvision").layer0] == [*triple, nn.MaxPool2d]
    pool = meta().layer0[9]
    assert (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode) == (3, 2, 1, False)


def test_torchvision_sizes() -> None:
    """The classification network of torchvision without its last layer: 25,557,032 - 2,049,000."""
    assert sum(p.numel() for p in meta(stem="torchvision").parameters()) == 23_508_032
    assert sum(p.numel() for p in meta(18, "torchvision").parameters()) == 11_689_512 - 513_000
    assert sum(p.numel() for p in meta(101, "torchvision").parameters()) == 44_549_160 - 2_049_000
    assert sum(p.numel() for p in meta(152, "torchvision").parameters()) == 60_192_808 - 2_049_000


@pytest.mark.parametrize(("depth", "blocks"), [(101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))])
def test_deeper_networks_have_more_blocks_and_the_same_channels(depth: int, blocks: tuple[int, ...]) -> None:
    backbone = meta(depth)
    assert tuple(len(backbone.stage(i)) for i in range(1, 5)) == blocks
    assert backbone.channels == meta(50).channels


def test_equals_torchvision_without_dilation() -> None:
    """Same weights, same features: our stages are torchvision's network cut in pieces."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    theirs = resnet18(weights=None).eval()
    ours = ResNet(18, "torchvision", "none").eval()
    state = theirs.state_dict()
    for old, new in (("conv1.", "layer0.0."), ("bn1.", "layer0.1.")):
        state = {(new + k.removeprefix(old) if k.startswith(old) else k): v for k, v in state.items()}
    ours.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")}, strict=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        assert torch.allclose(theirs.fc(ours(x)[4].mean(dim=(2, 3))), expected, atol=1e-6)


def test_norm_mode() -> None:
    backbone = ResNet(18, width=2)
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert all(m.training for m in backbone.train().modules() if m in norms)
    backbone.norm_mode = "eval"
    backbone.train()
    assert backbone.training
    assert not any(m.training for m in norms)
    assert backbone.layer4.training
    backbone.norm_mode = "train"
    backbone.train()
    assert all(m.training for m in norms)
    backbone.eval()
    assert not any(m.training for m in norms)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"depth": 34}, r"depth=34.*\[18, 50, 101, 152\]"),
        ({"stem": "deeep"}, r"stem='deeep'.*deep.*torchvision"),
        ({"dilation": "both"}, r"dilation='both'.*uniform.*torchvision.*none"),
    ],
)
def test_bad_arguments_name_the_allowed_values(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(FssError, match=text):
        ResNet(**arguments)  # type: ignore[arg-type]
