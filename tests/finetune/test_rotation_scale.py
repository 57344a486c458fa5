"""``rotation_scale``: a value per output channel, in a random basis."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.contracts.closed_forms import DEEP, Counts, Network, convs
from tests.finetune.formulas import LAYERS, Matrices, check_formula
from torch import Tensor, nn

from fss.finetune import apply
from fss.finetune.layers.rotation import random_rotation
from fss.finetune.rotation_scale import RotationScale


def trained(network: Network) -> Counts:
    return {f"{c.name}.S": c.out for c in convs(network, DEEP)}


def formula(m: Matrices) -> tuple[list[Tensor], Tensor]:
    R = random_rotation(m.W.shape[1], m.groups, 3, m.name, m.W)
    s = m.draw(m.groups, m.W.shape[1])
    return [s], R @ torch.diag_embed(s) @ R.mT @ m.W


@pytest.mark.parametrize("kind", LAYERS)
def test_output_and_gradients_equal_the_formula(kind: str) -> None:
    check_formula(kind, RotationScale((4,), rotation_seed=3), ("S",), formula)


def test_tuned_values_and_the_seed_give_the_rotated_network_back() -> None:
    """R is in no file of tuned values: it is drawn again."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)).double()
    one, two, other = (copy.deepcopy(plain) for _ in range(3))
    for model, seed in ((one, 4), (two, 4), (other, 5)):
        apply(model, RotationScale(rotation_seed=seed))
        with torch.no_grad():
            model[0].S.mul_(2)
            model[2].S[0] = 3
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    assert torch.equal(one(x), two(x))
    assert float((one(x) - other(x)).detach().abs().max()) > 0.01
