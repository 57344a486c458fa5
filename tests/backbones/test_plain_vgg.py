"""VGG-16 without batch norm: torchvision's network, its names, and the maps that HSNet takes from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from fss.backbones.plain_vgg import PlainVGG
from fss.methods.releases import torchvision_vgg
from fss.model.features import extract
from fss.types import FeatureSpec


def meta(width: int = 64) -> PlainVGG:
    with torch.device("meta"):
        return PlainVGG(width)


def test_equals_torchvision() -> None:
    """Its 31 layers one after another, and taps at 17, 19, 21, 24, 26, 28 and 30."""
    torch.manual_seed(0)
    features = make_layers(cfgs["D"])
    backbone = PlainVGG()
    theirs = {f"features.{k}": v for k, v in features.state_dict().items()}
    backbone.load_state_dict(backbone.stage_keys({**theirs, "classifier.0.bias": torch.zeros(1)}), strict=False)
    image, taps = torch.randn(1, 3, 75, 75), {}
    with torch.no_grad():
        x = image
        for i, layer in enumerate(features):
            x = layer(x.clone())
            taps[i] = x
        outputs = backbone(image)
        spec = FeatureSpec(stages=(), taps=(2, 3, 4))
        found = extract(backbone.eval(), spec, image, image[:, None], torch.ones(1, 1, 75, 75)).query_taps
    for output, number in zip(outputs, (9, 16, 22, 29, 30), strict=True):
        assert torch.equal(output, taps[number])
    assert [len(found[i]) for i in (2, 3, 4)] == [3, 3, 1]
    for tap, number in zip([*found[2], *found[3], *found[4]], (17, 19, 21, 24, 26, 28, 30), strict=True):
        assert torch.allclose(tap, taps[number], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "sides"), [(400, [100, 50, 50, 25, 12]), (96, [24, 12, 12, 6, 3])])
def test_stage_sizes(size: int, sides: list[int]) -> None:
    outputs = meta(width=2)(torch.empty(1, 3, size, size, device="meta"))
    assert [tuple(o.shape[-2:]) for o in outputs] == [(s, s) for s in sides]
    assert tuple(o.shape[1] for o in outputs) == meta(width=2).channels == (4, 8, 16, 16, 16)


def test_names_of_the_releases_are_those_of_the_backbone() -> None:
    """26 tensors: the table of the heads names the same layers as the class."""
    backbone = meta()
    layers = make_layers(cfgs["D"])
    numbers = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    pairs = dict(torchvision_vgg("backbone."))
    assert len(backbone.state_dict()) == 2 * len(pairs) == 26
    renamed = backbone.stage_keys({f"features.{i}.weight": torch.zeros(1) for i in numbers})
    for i, ours in zip(numbers, renamed, strict=True):
        assert pairs[f"backbone.features.{i}."] == f"backbone.{ours.removesuffix('weight')}"
