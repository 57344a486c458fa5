"""Blocks of timm against their plain form, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.finetune.chains.comparing import kept, lean, results, tuned
from tests.finetune.chains.test_fuse import TIGHT, far
from torch import nn

from fss.finetune.chains.blocks import way

pytest.importorskip("timm", reason="timm is an optional extra: pip install 'fss[timm]'")


def inverted() -> nn.Module:
    from timm.models._efficientnet_blocks import InvertedResidual

    return InvertedResidual(6, 6, exp_ratio=6, act_layer=nn.ReLU6)


def separable() -> nn.Module:
    from timm.models._efficientnet_blocks import DepthwiseSeparableConv

    return DepthwiseSeparableConv(6, 4, act_layer=nn.ReLU6)


def conv_norm_act() -> nn.Module:
    from timm.layers import ConvNormAct

    return ConvNormAct(6, 8, 3, stride=2, act_layer=nn.ReLU)


def bottleneck() -> nn.Module:
    from timm.models.resnet import Bottleneck

    return Bottleneck(8, 2)


def convnext() -> nn.Module:
    from timm.models.convnext import ConvNeXtBlock

    return ConvNeXtBlock(8, ls_init_value=0.5)


def vit() -> nn.Module:
    from timm.models.vision_transformer import Block

    return Block(8, 2, qkv_bias=True, init_values=0.5)


def eva() -> nn.Module:
    from timm.models.eva import EvaBlock

    return EvaBlock(8, 2, swiglu_mlp=True)


def swin() -> nn.Module:
    from timm.models.swin_transformer import SwinTransformerBlock

    return SwinTransformerBlock(8, (6, 6), num_heads=2, window_size=3, shift_size=1)


MAP = (2, 6, 12, 9)
CASES: dict[str, tuple[Any, tuple[int, ...], str, float]] = {
    "inverted": (inverted, MAP, "chain", 0.35),
    "separable": (separable, MAP, "chain", 0.55),
    "conv_norm_act": (conv_norm_act, MAP, "chain", 0.55),
    "bottleneck": (bottleneck, (2, 8, 7, 7), "chain", 0.45),
    "convnext": (convnext, (2, 8, 12, 9), "again", 0.35),
    "vit": (vit, (2, 9, 8), "again", 0.45),
    "eva": (eva, (2, 9, 8), "again", 0.45),
    "swin": (swin, (2, 6, 6, 8), "again", 0.45),
}


@pytest.mark.parametrize("memory", ["fast", "balanced", "least"])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_plain_form(name: str, memory: Any) -> None:
    torch.manual_seed(0)
    build, shape, expected, share = CASES[name]
    plain = tuned(build())
    made = lean(plain, memory)
    x = torch.randn(shape, dtype=torch.float64)
    ours, theirs = results(made, x), results(plain, x)
    assert all(far(a, b) < TIGHT for a, b in zip(ours, theirs, strict=True))
    assert way(made[0]) == ("as before" if memory == "fast" and expected == "again" else expected)
    if memory != "fast":
        x.requires_grad_(True)
        assert kept(made, x) <= share * kept(plain, x)
