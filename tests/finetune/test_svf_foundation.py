"""``svf_foundation``: singular values, and all that is in no factored layer."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.closed_forms import ALL, Counts, Network, convs
from tests.contracts.closed_forms import norms as batch_norms
from tests.contracts.layer_norms import DEEP_RANKS, norms
from tests.contracts.strategies import tiny

from fss.finetune import apply
from fss.finetune.svf_foundation import SVFFoundation

BACKBONES = ("layer_norms", "resnet18", "vgg16")
VARIANTS = {"svf_foundation-deep": ("finetune.stages=[3,4]", "finetune.memory=plain")}
BAD_OPTIONS = {"finetune.stages=[7]": "stages", "finetune.memory=most": "memory.*balanced"}


def trained(network: Network) -> Counts:
    return {f"{c.name}.S": c.rank for c in convs(network, ALL)} | batch_norms(network)


def test_scales_and_norms_train_and_biases_of_factored_layers_do_not() -> None:
    shallow = {"layer0.0.S": 4, "layer1.0.conv.S": 4, "layer1.0.fc1.S": 4, "layer1.0.fc2.S": 4}
    scales = {"layer1.0.gamma": 4, "layer2.2.gamma": 6, "layer3.1.gamma": 6, "layer4.1.gamma": 6}
    assert SVFFoundation().apply(tiny(kind="layer_norms")).trainable == DEEP_RANKS | shallow | scales | norms()


def test_counts_of_the_published_code_on_a_vit() -> None:
    """Of a DINOv2 ViT-S cut to two blocks: S of 9 layers of rank 384, 257 positions, and 15 vectors of 384."""
    timm = pytest.importorskip("timm", reason="needs the optional dependency timm")
    with torch.device("meta"):
        model = timm.create_model("vit_small_patch14_dinov2", depth=2, img_size=224, num_classes=0)
    report = apply(model, SVFFoundation())
    assert report.trainable_total == 107_904
    assert sum(v for n, v in report.trainable.items() if n.endswith(".S")) == 9 * 384 == 3_456
    assert report.trainable["pos_embed"] == 257 * 384 == 98_688
    # class token, and per block two LayerScales and weight and bias of two norms; then the last norm
    assert 107_904 - 3_456 - 98_688 == (1 + 2 * (2 + 4) + 2) * 384
