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


class Listener:
    def __init__(self) -> None:
        self.heard = 0

    def hear(self, *_: object) -> None:
        self.heard += 1


@pytest.mark.parametrize("path", ["layer1", "layer3.0", "layer3.0.conv1", "layer3.0.relu"])
@torch.no_grad()
def test_who_listens_to_the_backbone_hears_the_copy(path: str) -> None:
    """A bound method would be copied with its object, and a merged layer has no hooks."""
    net, listener = tiny(8), Listener()
    SVF().apply(net)
    net.get_submodule(path).register_forward_hook(listener.hear)
    x = torch.randn(1, 3, 33, 33)
    net(x)
    times = listener.heard
    made = merged_copy(net)
    assert isinstance(made, nn.Module)
    assert times > 0
    made(x)
    assert listener.heard == 2 * times
    merged = [isinstance(m, TunedLayer) for m in made.modules()]
    assert sum(merged) == (path.endswith("conv1"))
