"""A merged copy answers as the tuned backbone does, and leaves it alone."""

from __future__ import annotations

import pytest
import torch
from tests.methods.fakes import tiny
from torch import nn

from fss.finetune.adapter import Adapter
from fss.finetune.base import Strategy
from fss.finetune.chains.merged_copy import merged_copy
from fss.finetune.freeze import Freeze
from fss.finetune.layers.tuned import TunedLayer
from fss.finetune.lora import LoRA
from fss.finetune.scale_in import ScaleIn
from fss.finetune.svf import SVF


@pytest.mark.parametrize(
    "strategy", [SVF(), SVF(factors=("U", "S", "V")), ScaleIn(), LoRA(rank=2)], ids=lambda s: s.name
)
@torch.no_grad()
def test_the_copy_is_plain_and_equal(strategy: Strategy) -> None:
    net = tiny(8).double()
    strategy.apply(net)
    for p in net.parameters():
        if p.requires_grad:
            p.mul_(1 + 0.1 * torch.randn_like(p)).add_(0.01)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    made = merged_copy(net.train())
    assert isinstance(made, nn.Module)
    assert not any(isinstance(m, TunedLayer) for m in made.modules())
    assert not any(m.training for m in made.modules())
    x = torch.randn(2, 3, 33, 33, dtype=torch.float64)
    for ours, plain in zip(made(x), net.eval()(x), strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-10)
    assert any(isinstance(m, TunedLayer) for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    own = {p.data_ptr() for p in net.parameters()}
    assert not own & {p.data_ptr() for p in made.parameters()}


@pytest.mark.parametrize("strategy", [Freeze(), Adapter()], ids=lambda s: s.name)
def test_nothing_is_copied_where_nothing_can_be_merged(strategy: Strategy) -> None:
    net = tiny(8)
    strategy.apply(net)
    assert merged_copy(net) is None
