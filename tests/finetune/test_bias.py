"""``bias``: biases of convolutions, linear layers, attention and norms."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.closed_forms import ALL, Counts, Network, convs
from tests.contracts.closed_forms import norms as batch_norms
from tests.contracts.layer_norms import norms
from tests.contracts.strategies import tiny
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from fss.finetune import apply
from fss.finetune.bias import Bias

BACKBONES = ("resnet18", "vgg16", "layer_norms")


def trained(network: Network) -> Counts:
    return batch_norms(network, ("bias",)) | {f"{c.name}.bias": c.out for c in convs(network, ALL) if c.biased}


def test_linear_layers_convolutions_and_layer_norm() -> None:
    layers = {"layer0.0": 4, "layer2.1": 6, "layer4.0.qkv": 18, "layer4.0.proj": 6}
    for block, width in (("layer1.0", 4), ("layer2.2", 6), ("layer3.1", 6), ("layer4.1", 6)):
        layers |= {f"{block}.conv": width, f"{block}.fc1": 2 * width, f"{block}.fc2": width}
    expected = norms(("bias",)) | {f"{n}.bias": v for n, v in layers.items()}
    assert Bias().apply(tiny(kind="layer_norms")).trainable == expected


def test_a_transformer_as_bitfit_tunes_it() -> None:
    """Query, key and value in one vector, output, both layers of the MLP and both norms; then patches and last norm."""
    with torch.device("meta"):
        model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=20, num_classes=3)
    model.heads = nn.Identity()
    report = apply(model, Bias())
    assert report.trainable_total == 2 * (3 * 12 + 12 + 20 + 12 + 12 + 12) + 12 + 12
    assert all(name.endswith("bias") for name in report.trainable)
    assert [n for n in report.trainable if "in_proj_bias" in n]


def test_biases_of_timms_attention_count_and_positions_do_not() -> None:
    timm = pytest.importorskip("timm", reason="needs the optional dependency timm")
    with torch.device("meta"):
        beit = timm.create_model("beit_base_patch16_224", depth=1, num_classes=0)
        swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), num_classes=0)
    found = apply(beit, Bias()).trainable
    assert found["blocks.0.attn.q_bias"] == found["blocks.0.attn.v_bias"] == 768
    found = apply(swin, Bias()).trainable
    assert found["layers.0.blocks.0.attn.qkv.bias"] == 3 * 96
    assert not [n for n in found if "table" in n]
