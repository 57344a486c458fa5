"""``svf_residual``: exponents of the singular values."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.closed_forms import DEEP, Counts, Network, convs
from tests.finetune.formulas import LAYERS, Matrices, check_formula
from torch import Tensor

from fss.finetune.svf_residual import SVFResidual

VARIANTS = {"svf_residual-both": ("finetune.train_s=true",)}


def trained(network: Network) -> Counts:
    return {f"{c.name}.p": c.rank for c in convs(network, DEEP)}


def formula(m: Matrices) -> tuple[list[Tensor], Tensor]:
    U, S, Vt = m.svd()
    S = S.clone().requires_grad_()
    p = m.draw(*S.shape)
    return [p, S], U @ torch.diag_embed(S) @ torch.diag_embed(p.exp()) @ Vt


@pytest.mark.parametrize("kind", LAYERS)
def test_output_and_gradients_equal_the_formula(kind: str) -> None:
    check_formula(kind, SVFResidual((4,), train_s=True), ("p", "S"), formula)
