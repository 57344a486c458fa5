"""Backbones as CANet, PPNet, PANet and SG-One build them give the values of the releases, in float64.

Weights and images follow formulas; the values are those of the released networks. HSNet's, ASGNet's, CyCTR's and
DCAMA's forms are tested with their heads in ``tests/zoo``.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.finetune.chains.test_fuse import far, run, unusual
from torch import Tensor, nn

from fss.backbones.plain_vgg import PlainVGG
from fss.backbones.resnet import ResNet
from fss.backbones.staged import StagedModule
from fss.errors import FssError
from fss.finetune.chains.blocks import way
from fss.finetune.chains.fuse import FusedBottleneck, fuse
from fss.finetune.svf import SVF
from fss.model.features import extract
from fss.types import FeatureSpec

PRINTED = 6e-9
"""Largest relative deviation: the values have nine digits."""
CANET: dict[str, Any] = {"dilation": "uniform", "stride_on": "1x1", "pool": "ceil"}
PPNET: dict[str, Any] = {"last_relu": False}
PANET: dict[str, Any] = {"pool": "3x3", "output_stride": 8, "dilation": 2, "last_relu": False, "last_pool": False}
SG_ONE: dict[str, Any] = {"pool": "3x3", "output_stride": 8}
# Place of every convolution: ours -> number of the group and of the layer in it, as in the releases.
VGG_LAYERS = {
    **{f"layer0.{i}": (1, i) for i in (0, 2)},
    **{f"layer0.{i + 5}": (2, i) for i in (0, 2)},
    **{f"layer1.{i}": (3, i) for i in (0, 2, 4)},
    **{f"layer2.{i}": (4, i) for i in (0, 2, 4)},
    **{f"layer3.{i + 1}": (5, i) for i in (0, 2, 4)},
}


def of_canet(key: str, shape: tuple[int, ...], gain: float = 2.0) -> Tensor:
    """Return a tensor of the formula of CANet's and SG-One's values."""
    z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        value = 1 + 0.2 * np.abs(z)
    elif z.ndim == 4:
        value = (z - z.mean((1, 2, 3), keepdims=True)) * np.sqrt(gain / np.prod(shape[1:]))
    else:
        value = 1 + 0.1 * z if key.endswith(".weight") else 0.1 * z
    return torch.from_numpy(np.asarray(value))


def of_panet(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of the formula of PANet's and PPNet's values."""
    seed = zlib.crc32(f"zoo:{key}".encode())
    z, u = np.random.RandomState(seed).standard_normal(shape), np.random.RandomState(seed).random_sample(shape)
    if z.ndim == 4:
        value = z * np.sqrt(2 / np.prod(shape[1:]))
        value = value - 0.7 * value.mean((1, 2, 3), keepdims=True)
    elif key.endswith("running_var"):
        value = 0.5 + u
    elif key.endswith(".weight"):
        value = (0.3 if ".bn3." in key else 1) * (0.5 + u)
    else:
        value = (0.05 if ".features." in key else 0.1) * z
    return torch.from_numpy(value)


def resnet_key(key: str) -> str:
    return key.replace("layer0.0.", "conv1.").replace("layer0.1.", "bn1.")


def vgg_key(name: Callable[[int, int], str]) -> Callable[[str], str]:
    def renamed(key: str) -> str:
        layer, _, leaf = key.rpartition(".")
        return f"{name(*VGG_LAYERS[layer])}.{leaf}"

    return renamed


def filled(
    backbone: StagedModule, name: Callable[[str], str], fill: Callable[..., Tensor], last: int = 4
) -> StagedModule:
    """Fill a backbone up to a stage, by the names that its tensors have in a release."""
    backbone.double().eval()
    with torch.no_grad():
        for key, tensor in backbone.state_dict().items():
            if not key.endswith("batches_tracked") and int(key[len("layer")]) <= last:
                tensor.copy_(fill(name(key), tuple(tensor.shape)))
    return backbone


def images_of_canet(size: int, batch: int) -> tuple[Tensor, Tensor]:
    rng = np.random.RandomState(7)
    query = rng.standard_normal((batch, 3, size, size))
    support = 0.5 * rng.standard_normal((batch, 5, 3, size, size)) + 0.5 * query[:, None]
    return torch.from_numpy(query), torch.from_numpy(support[:, 0])


def images_of_panet() -> tuple[Tensor, Tensor]:
    rng = np.random.RandomState(20211)
    query = rng.standard_normal((2, 3, 97, 97))
    support = 0.5 * rng.standard_normal((2, 5, 3, 97, 97)) + 0.5 * query[:, None]
    return torch.from_numpy(query), torch.from_numpy(support[:, 0])


def stages(backbone: StagedModule, image: Tensor, last: int) -> list[Tensor]:
    outputs = []
    with torch.no_grad():
        for index in range(last + 1):
            image = backbone.stage(index)(image)
            outputs.append(image)
    return outputs


# The standard deviations of stages of CANet and SG-One are printed with n - 1 (their sheet says otherwise), those of
# PANet and PPNet with n.
def moments(x: Tensor, correction: int) -> list[float]:
    return [float(x.mean()), float(x.std(correction=correction))]


def ends(x: Tensor) -> list[float]:
    return [*moments(x, 0), float(x.flatten()[0]), float(x.flatten()[-1])]


def agree(got: list[float], printed: list[float]) -> None:
    assert max(abs(g / p - 1) for g, p in zip(got, printed, strict=True)) < PRINTED, (got, printed)


def test_canet() -> None:
    """Stages 2 and 3 through CANet's first convolution, at a side where the pooling of the stem rounds up."""
    backbone = filled(ResNet(50, **CANET), resnet_key, lambda k, s: of_canet(k, s, 1.0), last=3)
    *_, x2, x3 = stages(backbone, images_of_canet(116, 2)[0], 3)
    weight, bias = of_canet("layer5.0.weight", (256, 1536, 3, 3)), of_canet("layer5.0.bias", (256,))
    found = F.conv2d(torch.cat([x2, x3], 1), weight, bias, padding=2, dilation=2).relu()
    assert found.shape == (2, 256, 15, 15)
    agree(moments(found, 1), [1.69129210e-01, 2.37752814e-01])


def test_ppnet() -> None:
    backbone = filled(ResNet(50, **PPNET), lambda k: f"encoder.backbone.{resnet_key(k)}", of_panet)
    query, support = images_of_panet()
    found = stages(backbone, torch.stack([support[0], query[0]]), 4)[4]
    assert found.shape == (2, 2048, 13, 13)
    agree(ends(found), [8.13085207e-01, 1.23431332e00, 7.12840239e-01, 1.95068691e00])


def test_panet() -> None:
    group = vgg_key(lambda number, layer: f"encoder.backbone.features.{2 * number - 2}.{layer}")
    backbone = filled(PlainVGG(**PANET), group, of_panet)
    query, support = images_of_panet()
    found = stages(backbone, torch.cat([support, query]), 4)
    assert found[4].shape == (4, 512, 13, 13)
    assert torch.equal(found[3], found[4])
    agree(ends(found[4]), [9.27255301e-03, 4.55005425e-01, -3.45791293e-01, -2.86683844e-02])


def test_sg_one() -> None:
    group = vgg_key(lambda number, layer: f"netB.features_{number}.{layer}")
    backbone = filled(PlainVGG(**SG_ONE), group, of_canet)
    found = stages(backbone, images_of_canet(118, 1)[1], 4)
    agree(moments(found[1], 1), [5.16517898e-01, 3.01600571e-01])
    agree(moments(found[4], 1), [2.26059236e-01, 1.99014247e-01])


def test_only_stage_2_of_canet_moves_its_stride() -> None:
    with torch.device("meta"):
        plain, canet, strided = (
            ResNet(50, width=2, **o) for o in ({"dilation": "uniform"}, CANET, {**CANET, "dilation": "none"})
        )

    def strides(backbone: ResNet) -> dict[str, tuple[int, ...]]:
        convolutions = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
        return {n: m.stride for n, m in convolutions.items() if m.stride != (1, 1)}

    assert strides(plain).keys() == {"layer0.0", "layer2.0.conv2", "layer2.0.downsample.0"}
    assert strides(canet).keys() == {"layer0.0", "layer2.0.conv1", "layer2.0.downsample.0"}
    first = {f"layer{i}.0.{name}" for i in (2, 3, 4) for name in ("conv1", "downsample.0")}
    assert strides(strided).keys() == {"layer0.0", *first}
    for a, b in zip(plain.modules(), canet.modules(), strict=True):
        if isinstance(a, nn.Conv2d):
            assert isinstance(b, nn.Conv2d)
            assert (a.dilation, a.padding) == (b.dilation, b.padding)


@pytest.mark.parametrize(("depth", "stem"), [(18, "torchvision"), (50, "deep")])
def test_ppnet_differs_in_the_last_relu_alone(depth: int, stem: Any) -> None:
    torch.manual_seed(0)
    usual = ResNet(depth, stem, width=2).eval()
    other = ResNet(depth, stem, width=2, last_relu=False).eval()
    other.load_state_dict(usual.state_dict())
    image, label = torch.randn(1, 3, 33, 33), torch.ones(1, 1, 33, 33)
    with torch.no_grad():
        ours, theirs = other(image), usual(image)
        a, b = (extract(m, FeatureSpec((), (4,)), image, image[:, None], label).query_taps[4] for m in (other, usual))
    assert all(torch.equal(x, y) for x, y in zip(ours[:4], theirs[:4], strict=True))
    assert (ours[4] < 0).any()
    assert torch.equal(ours[4].relu(), theirs[4])
    assert all(torch.allclose(x, y, rtol=0, atol=1e-6) for x, y in zip(a, b, strict=True)), "taps lie before the ReLU"


def test_taps_of_panet_are_its_convolutions() -> None:
    torch.manual_seed(0)
    backbone = PlainVGG(2, **PANET).eval()
    image = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        outputs = backbone(image)
        taps = extract(backbone, FeatureSpec((), (3, 4)), image, image[:, None], torch.ones(1, 1, 33, 33)).query_taps
        x = F.max_pool2d(outputs[2], 3, 1, 1)
        for tap, place in zip(taps[3], (1, 3, 5), strict=True):
            y = backbone.layer3[place](x)  # type: ignore[index, operator]
            assert torch.allclose(tap, y, rtol=0, atol=1e-6)
            x = y.relu()
    assert [t.shape for t in taps[4]] == [outputs[4].shape]


FORMS: dict[str, Callable[[], Any]] = {
    "CANet": lambda: ResNet(50, width=4, **CANET),
    "CANet without dilation": lambda: ResNet(50, width=4, **{**CANET, "dilation": "none"}),
    "PPNet": lambda: ResNet(50, width=4, **PPNET),
    "PPNet of basic blocks": lambda: ResNet(18, width=4, **PPNET),
    "PANet": lambda: PlainVGG(4, **PANET),
    "SG-One": lambda: PlainVGG(4, **SG_ONE),
}


@pytest.mark.parametrize("name", FORMS)
def test_svf_with_little_memory(name: str) -> None:
    """Chains give what the plain layers give: stages, and the gradients of the image and of what trains."""
    torch.manual_seed(0)
    plain = FORMS[name]().double()
    unusual(plain)
    SVF(memory="plain").apply(plain)
    plain.train()
    x = torch.randn(2, 3, 38, 38, dtype=torch.float64)
    b, gb = run(plain, x, [p for p in plain.parameters() if p.requires_grad])
    for memory in ("fast", "balanced", "least"):
        lean = copy.deepcopy(plain)
        fuse(lean, memory)
        a, ga = run(lean, x, [p for p in lean.parameters() if p.requires_grad])
        assert all(far(p, q) < 1e-10 for p, q in zip([*a, *ga], [*b, *gb], strict=True)), memory
        if name.startswith("PPNet"):
            assert (a[4] < 0).any()
            assert way(lean.layer4[-1]) == "chain"
        if name.startswith("CANet"):
            assert type(lean.layer2[0]) is FusedBottleneck


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (ResNet, {"stride_on": "1"}, r"stride_on='1'.*3x3.*1x1"),
        (ResNet, {"stride_on": "1x1", "depth": 18}, r"stride_on=1x1.*depth=18.*3x3"),
        (ResNet, {"pool": "up"}, r"pool='up'.*floor.*ceil"),
        (ResNet, {"last_relu": "no"}, r"last_relu='no'.*True.*False"),
        (PlainVGG, {"output_stride": 8}, r"output_stride=8.*pool=2x2.*pool=3x3"),
        (PlainVGG, {"output_stride": 16}, r"output_stride=16.*\[8, 32\]"),
        (PlainVGG, {"dilation": "uniform"}, r"dilation='uniform'.*\[1, 2, 4\]"),
        (PlainVGG, {"pool": "ceil"}, r"pool='ceil'.*2x2.*3x3"),
    ],
)
def test_bad_arguments_name_the_allowed_values(kind: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(FssError, match=text):
        kind(**options)
