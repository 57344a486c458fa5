"""``svf``: the singular values."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.closed_forms import DEEP, Counts, Network, convs
from tests.finetune.formulas import LAYERS, Matrices, check_formula
from torch import Tensor

from fss.finetune.svf import SVF

VARIANTS = {"svf-usv": ("finetune.factors=[U,S,V]",), "svf-stem": ("finetune.stages=[0,4]",)}
BAD_OPTIONS = {
    "finetune.stages=[5]": "stages",
    "finetune.stages=[-1]": "stages",
    "finetune.factors=[]": "factors",
    "finetune.factors=[S,W]": "factors",
    "finetune.factors=[X]": "factors",
    "finetune.rank_rounding=0": "rank_rounding=0",
    "finetune.qkv=two": "qkv=two.*one, three",
    "finetune.qkv=three": "no linear layer named qkv",
}


def trained(network: Network) -> Counts:
    return {f"{c.name}.S": c.rank for c in convs(network, DEEP)}


def formula(m: Matrices) -> tuple[list[Tensor], Tensor]:
    U, S, Vt = m.svd()
    s = (S * m.draw(*S.shape).detach()).requires_grad_()
    return [s], U @ torch.diag_embed(s) @ Vt


def formula_of_all(m: Matrices) -> tuple[list[Tensor], Tensor]:
    U, S, Vt = (t.clone().requires_grad_() for t in m.svd())
    return [U, S, Vt], U @ torch.diag_embed(S) @ Vt


@pytest.mark.parametrize("kind", LAYERS)
def test_output_and_gradients_equal_the_formula(kind: str) -> None:
    check_formula(kind, SVF((4,)), ("S",), formula)


@pytest.mark.parametrize("kind", LAYERS)
def test_all_factors_equal_the_formula_where_they_start(kind: str) -> None:
    """Any other U and V would be no singular vectors."""
    check_formula(kind, SVF((4,), ("U", "S", "V")), ("U", "S", "V"), formula_of_all, draw=False)
