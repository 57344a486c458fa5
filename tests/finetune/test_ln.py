"""``ln``: weights and biases of LayerNorm of every class, RMSNorm and GroupNorm."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.closed_forms import Counts, Network
from tests.contracts.layer_norms import norms
from tests.contracts.strategies import tiny
from torch import nn

from fss.errors import FssError
from fss.finetune import apply
from fss.finetune.ln import LN

BACKBONES = ("layer_norms",)
VARIANTS = {"ln-bias": ("finetune.affine=[bias]", "finetune.stages=[0,2,4]")}
BAD_OPTIONS = {
    "finetune.affine=[scale]": "affine.*weight, bias",
    "finetune.affine=[]": "affine.*weight, bias",
    "finetune.stages=[5]": "stages",
    "finetune.stages=[]": "finetune=ln finds no weight or bias of LayerNorm.*no stages at all",
}


def trained(network: Network) -> Counts:
    return {}


def test_every_kind_of_norm_trains() -> None:
    assert LN().apply(tiny(kind="layer_norms")).trainable == norms()
    assert LN(affine=("weight",)).apply(tiny(kind="layer_norms")).trainable == norms(("weight",))
    found = LN(stages=(3,), affine=("bias",)).apply(tiny(kind="layer_norms")).trainable
    assert found == {"layer3.1.norm.bias": 6}  # RMSNorm has none


def test_batch_and_instance_norm_do_not_count() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.RMSNorm(4), nn.PReLU(4))
    assert apply(model, LN()).trainable == {"2.weight": 4}


def test_what_is_missing_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.RMSNorm(4), nn.RMSNorm(4))
    with pytest.raises(FssError, match=r"no bias of LayerNorm, RMSNorm or GroupNorm.*has 1 Linear, 2 RMSNorm"):
        apply(model, LN(affine=("bias",)))
    assert all(p.requires_grad for p in model.parameters())


def test_timms_classes_count() -> None:
    layers = pytest.importorskip("timm.layers", reason="needs the optional dependency timm")
    names = ("LayerNorm", "LayerNorm2d", "RmsNorm", "RmsNorm2d", "GroupNorm1", "SimpleNorm", "BatchNormAct2d")
    with torch.device("meta"):
        model = nn.Sequential(*(getattr(layers, name)(4) for name in names))
    expected = {f"{i}.{a}" for i in range(6) for a in ("weight", "bias")} - {"2.bias", "3.bias", "5.bias"}
    assert set(apply(model, LN()).trainable) == expected
