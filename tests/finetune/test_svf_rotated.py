"""``svf_rotated``: the singular values, in a random basis."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.closed_forms import DEEP, Counts, Network, convs
from tests.finetune.formulas import LAYERS, Matrices, check_formula
from torch import Tensor

from fss.finetune.layers.rotation import random_rotation
from fss.finetune.svf_rotated import SVFRotated

VARIANTS = {"svf_rotated-frozen": ("finetune.train_s=false",)}
CHANGES_THE_NETWORK = True


def trained(network: Network) -> Counts:
    return {f"{c.name}.S": c.rank for c in convs(network, DEEP)}


def formula(m: Matrices) -> tuple[list[Tensor], Tensor]:
    U, S, Vt = m.svd()
    R = random_rotation(S.shape[1], m.groups, 3, m.name, m.W)
    s = (S * m.draw(*S.shape).detach()).requires_grad_()
    return [s], U @ R @ torch.diag_embed(s) @ R.mT @ Vt


@pytest.mark.parametrize("kind", LAYERS)
def test_output_and_gradients_equal_the_formula(kind: str) -> None:
    check_formula(kind, SVFRotated((4,), rotation_seed=3), ("S",), formula)
