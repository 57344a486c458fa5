"""``svf_ln``: the singular values and LayerNorm."""

from __future__ import annotations

import pytest
from tests.contracts.closed_forms import Counts, Network
from tests.contracts.layer_norms import DEEP_RANKS, norms
from tests.contracts.strategies import tiny
from torch import nn

from fss.errors import FssError
from fss.finetune import apply
from fss.finetune.svf_ln import SVFLN

BACKBONES = ("layer_norms",)
VARIANTS = {"svf_ln-weight": ("finetune.stages=[4]", "finetune.affine=[weight]", "finetune.ln_stages=[0,3]")}
BAD_OPTIONS = {
    "finetune.ln_stages=[6]": "stages",
    "finetune.memory=most": "memory.*balanced",
    "finetune.ln_stages=[]": "finetune=svf_ln finds no weight or bias of LayerNorm",
}


def trained(network: Network) -> Counts:
    return {}


def test_singular_values_and_norms_train() -> None:
    assert SVFLN().apply(tiny(kind="layer_norms")).trainable == DEEP_RANKS | norms()


def test_norms_without_layers_are_no_svf() -> None:
    with pytest.raises(FssError, match=r"finetune=svf_ln finds no layer to train.*has 1 LayerNorm"):
        apply(nn.Sequential(nn.LayerNorm(4)), SVFLN())
