"""``scale_in``: a value per column of the weight's matrix."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.contracts.closed_forms import DEEP, Counts, Network, convs
from tests.finetune.formulas import EXACT, LAYERS, Matrices, check_formula, inputs
from torch import Tensor, nn

from fss.finetune import apply
from fss.finetune.scale_in import ScaleIn

VARIANTS = {"scale_in-channel": ("finetune.per=channel", "finetune.stages=[0,3]")}
BAD_OPTIONS = {"finetune.per=kernel": "per=kernel.*column, channel"}


def trained(network: Network) -> Counts:
    return {f"{c.name}.scale": c.columns for c in convs(network, DEEP)}


def formula(m: Matrices) -> tuple[list[Tensor], Tensor]:
    s = m.draw(m.groups, m.W.shape[2])
    return [s], m.W @ torch.diag_embed(s)


@pytest.mark.parametrize("kind", LAYERS)
def test_output_and_gradients_equal_the_formula(kind: str) -> None:
    check_formula(kind, ScaleIn((4,)), ("scale",), formula)


def test_scaling_per_channel_scales_the_input() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, padding=1).double()
    model = nn.Sequential(copy.deepcopy(conv))
    assert apply(model, ScaleIn((4,), per="channel")).trainable == {"0.scale": 6}
    with torch.no_grad():
        model[0].scale.copy_(torch.arange(6.0).reshape(1, 1, 6, 1))
        x = inputs(conv)
        assert float((model(x) - conv(x * torch.arange(6.0).reshape(1, 6, 1, 1))).abs().max()) < EXACT
