"""``lora``: two factors of rank 8 beside every layer."""

from __future__ import annotations

import pytest
from tests.contracts.closed_forms import DEEP, Counts, Network, convs
from tests.finetune.formulas import LAYERS, Matrices, check_formula
from torch import Tensor

from fss.finetune.lora import LoRA

VARIANTS = {"lora-rank1": ("finetune.rank=1", "finetune.alpha=0.5", "finetune.stages=[0,1]")}
BAD_OPTIONS = {"finetune.rank=0": "rank=0.*from 1 up", "finetune.alpha=0": "alpha=0.*above 0"}


def trained(network: Network) -> Counts:
    return {f"{c.name}.{f}": 8 * size for c in convs(network, DEEP) for f, size in (("A", c.columns), ("B", c.out))}


def formula(m: Matrices) -> tuple[list[Tensor], Tensor]:
    A, B = m.draw(m.groups, 2, m.W.shape[2]), m.draw(m.groups, m.W.shape[1], 2)
    return [A, B], m.W + 3.0 / 2 * B @ A


@pytest.mark.parametrize("kind", LAYERS)
def test_output_and_gradients_equal_the_formula(kind: str) -> None:
    check_formula(kind, LoRA((4,), rank=2, alpha=3.0), ("A", "B"), formula)
