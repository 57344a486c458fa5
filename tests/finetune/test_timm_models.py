"""Strategies on timm's models, narrow and shallow: convolutions, subclassed ones, transformers and hybrids.

The full models are those of ``python -m benchmarks.timm_injection``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm", reason="needs the optional dependency timm")

from benchmarks.timm_injection import COUNTS, STRATEGIES, build, counts, inject, lively, run
from timm.layers import GroupNormAct, StdConv2d
from timm.models.nfnet import NfCfg, NormFreeNet
from timm.models.resnetv2 import ResNetV2

from fss.errors import FssError
from fss.finetune import apply, merge
from fss.finetune.layers.module_stages import keeps_statistics
from fss.finetune.layers.tuned import TunedLayer
from fss.finetune.svf import SVF

VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}


def standardised() -> nn.Module:
    """BiT: weights standardised by the convolution."""
    norm = lambda width, **options: GroupNormAct(width, num_groups=2)  # noqa: E731
    layers, channels = (1, 1, 1, 1), (8, 16, 16, 16)
    return ResNetV2(layers, channels, num_classes=0, conv_layer=StdConv2d, norm_layer=norm, stem_chs=8)


def normaliser_free() -> nn.Module:
    """NFNet: standardised and scaled weights, no norm."""
    return NormFreeNet(NfCfg((1, 1, 1, 1), (16, 16, 24, 32), stem_chs=8, num_features=32), num_classes=0)


def padded() -> nn.Module:
    """The first blocks of an EfficientNet of TensorFlow: convolutions of "SAME" padding, batch norm with activation."""
    model = build("tf_efficientnet_lite0")
    return nn.Sequential(model.conv_stem, model.bn1, model.blocks[:2])  # type: ignore[index]


def mobile() -> nn.Module:
    """The first stages of a MobileViT: convolutions, and transformers within."""
    model = build("mobilevit_xxs")
    return nn.Sequential(model.stem, model.stages[:3])  # type: ignore[index]


DAVIT = {"depths": (1, 1, 1), "embed_dims": (8, 8, 16), "num_heads": (1, 1, 2)}
SWIN = {"img_size": 28, "embed_dim": 12, "depths": (2, 1), "num_heads": (1, 2)}
# side of the image, layers replaced, layers that keep their forward
MODELS: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {
    "resnet": (lambda: build("resnet50", layers=(1, 1, 1, 1), channels=(8, 12, 16, 20)), 32, 17, 0),
    "convnext": (lambda: build("convnextv2_atto", depths=(1, 1, 1, 1), dims=(8, 12, 16, 20)), 32, 16, 0),
    "swin": (lambda: build("swin_tiny_patch4_window7_224", **SWIN), 28, 14, 0),
    "dinov2": (lambda: build("vit_small_patch14_dinov2", img_size=28, **VIT), 28, 9, 0),
    "dinov3": (lambda: build("vit_small_patch16_dinov3", **VIT), 32, 9, 0),
    "beit, which reads weights": (lambda: build("beit_base_patch16_224", img_size=32, **VIT), 32, 9, 0),
    "davit, which reads sizes": (lambda: build("davit_tiny", **DAVIT), 32, 39, 0),
    "mobilevit": (mobile, 32, 28, 0),
    "vit with a stem of convolutions": (lambda: build("vit_tiny_r_s16_p8_224", img_size=32, **VIT), 32, 9, 1),
    "SAME": (padded, 32, 7, 2),
    "standardised": (standardised, 32, 0, 17),
    "normaliser-free": (normaliser_free, 32, 0, 18),
}


ALL = [name for name in STRATEGIES if name != "adapter"]
FEW = ["svf", "svf_bn", "lora", "scale_in"]
THOROUGH = ("resnet", "dinov3", "SAME", "standardised")
PAIRS = [(kind, name) for kind in MODELS for name in (ALL if kind in THOROUGH else FEW)]


@cache
def plain(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return lively(MODELS[kind][0]())


def image(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_the_output_stays_statistics_stay_and_merging_is_equal(kind: str, name: str) -> None:
    _, side, replaced, on_weight = MODELS[kind]
    outcome = inject(copy.deepcopy(plain(kind)), STRATEGIES[name], image(side))
    if name == "svf_bn" and not any(keeps_statistics(m) for m in plain(kind).modules()):
        assert "no weight or bias of batch norm" in outcome.refused
    elif name == "scale_out" and kind == "standardised":
        assert "normalises its weight, so the new values would have no effect" in outcome.refused
    else:
        assert outcome.refused == ""
        assert outcome.good(name), outcome
        assert outcome.trainable > 0
        assert (outcome.replaced, outcome.on_weight) == (replaced, on_weight)
        assert (name == "svf_rotated") == (outcome.change > 1e-3)


def test_the_check_finds_moving_statistics_and_a_changed_output() -> None:
    """What the tests above exclude does happen to a plain model, and to layers replaced as if they were plain."""
    model = lively(padded())
    before = [b.clone() for b in model.buffers()]
    run(model, image(32))
    model.train()(image(32))
    assert not all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    same = model[0]
    wrong = nn.Conv2d(3, same.out_channels, 3, 2, bias=False)  # type: ignore[arg-type]
    wrong.weight = same.weight  # type: ignore[assignment]
    assert wrong(image(32)).shape != same(image(32)).shape


@pytest.mark.parametrize("name", ["resnet50", "vit_small_patch16_dinov3", "tf_efficientnet_lite0"])
def test_trainable_counts_of_full_models(name: str) -> None:
    """On the meta device, which holds shapes only."""
    assert counts(name) == COUNTS[name]


def test_stages_of_a_model_without_classes_of_ours() -> None:
    model = lively(build("vit_small_patch14_dinov2", img_size=28, **VIT))
    stages = {0: ["patch_embed"], 3: ["blocks.0"], 4: ["blocks.1"]}
    report = apply(model, SVF((4,)), stages)
    assert report.trainable == {
        "blocks.1.attn.qkv.S": 48,
        "blocks.1.attn.proj.S": 48,
        "blocks.1.mlp.fc1.S": 48,
        "blocks.1.mlp.fc2.S": 48,
    }
    merge(model, SVF((4,)), stages)
    assert not [m for m in model.modules() if isinstance(m, TunedLayer)]


def test_a_classifier_is_noted_by_timms_name() -> None:
    with torch.device("meta"):
        report = apply(build("resnet18", 10), SVF())
    assert report.notes[0].startswith("no stages were given, so the classifier fc of ResNet trains too: 10 of 4,362")


def test_features_only_models_work() -> None:
    model = lively(build("resnet18", 0, features_only=True, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8)))
    before = [m.clone() for m in model.eval()(image(32))]
    stages = {1: ["layer1"], 2: ["layer2"], 3: ["layer3"], 4: ["layer4"]}
    report = apply(model, SVF((3, 4)), stages)
    assert {n.split(".")[0] for n in report.trainable} == {"layer3", "layer4"}
    for a, b in zip(before, model(image(32)), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_layers_that_cannot_be_tuned_are_named() -> None:
    model = lively(standardised())
    with pytest.raises(FssError, match=r"stem\.conv, stages\.0.* and 12 more \(StdConv2d: it normalises"):
        apply(model, STRATEGIES["scale_out"]())
    assert all(type(m) is not TunedLayer for m in model.modules())
