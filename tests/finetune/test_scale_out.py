"""``scale_out``: a value per output channel."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.closed_forms import DEEP, Counts, Network, convs
from tests.finetune.formulas import LAYERS, Matrices, check_formula
from torch import Tensor

from fss.finetune.scale_out import ScaleOut


def trained(network: Network) -> Counts:
    return {f"{c.name}.scale": c.out for c in convs(network, DEEP)}


def formula(m: Matrices) -> tuple[list[Tensor], Tensor]:
    s = m.draw(m.groups, m.W.shape[1])
    return [s], torch.diag_embed(s) @ m.W


@pytest.mark.parametrize("kind", LAYERS)
def test_output_and_gradients_equal_the_formula(kind: str) -> None:
    check_formula(kind, ScaleOut((4,)), ("scale",), formula)
