"""Wrong arguments of strategies are answered: what was given, what is allowed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.contracts.strategies import node, tiny

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.svf import SVF
from fss.model.build import build_strategy


@pytest.mark.parametrize(
    ("make_it", "text"),
    [
        (lambda: SVF(stages=(5,)), "stages"),
        (lambda: SVF(stages=(-1,)), "stages"),
        (lambda: SVF(factors=()), "factors"),
        (lambda: SVF(factors=("S", "W")), "factors"),
        (lambda: SVF(rank_rounding=0), "rank_rounding=0"),
        (lambda: build_strategy(node("part", "finetune.kernel_sizes=[]")), "kernel_sizes.*finetune.kernel_sizes="),
        (lambda: build_strategy(node("part", "finetune.kernel_sizes=[0]")), "kernel_sizes=.0. is not allowed"),
        (lambda: build_strategy(node("part", "finetune.kernel_sizes=[7]")).apply(tiny()), "fits no convolution.*3x3"),
        (lambda: build_strategy(node("bn", "finetune.affine=[scale]")), "affine.*weight, bias"),
        (lambda: build_strategy(node("svf_bn", "finetune.bn_stages=[6]")), "stages"),
        (lambda: build_strategy(node("scale_in", "finetune.per=kernel")), "per=kernel.*column, channel"),
        (lambda: build_strategy(node("svf_bounded", "finetune.rule=max")), "rule=max.*relative, svb, clamp"),
        (lambda: build_strategy(node("svf_bounded", "finetune.epsilon=-1")), "epsilon=-1.*from 0 up"),
        (lambda: build_strategy(node("adapter", "finetune.reduction=0")), "reduction=0.*from 1 up"),
        (lambda: build_strategy(node("lora", "finetune.rank=0")), "rank=0.*from 1 up"),
        (lambda: build_strategy(node("lora", "finetune.alpha=0")), "alpha=0.*above 0"),
        (lambda: build_strategy(node("svf", "finetune.factors=[X]")), "factors"),
        (lambda: build_strategy(node("full", "finetune.stages=[9]")), "stages"),
    ],
)
def test_bad_arguments_are_named(make_it: Callable[[], Strategy], text: str) -> None:
    with pytest.raises(FssError, match=text):
        make_it()
