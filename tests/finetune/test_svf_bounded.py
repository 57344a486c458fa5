"""``svf_bounded``: the singular values, which stay within their bounds after every step."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.closed_forms import DEEP, Counts, Network, convs
from torch import nn

from fss.finetune import apply
from fss.finetune.layers.module_stages import ModuleStages
from fss.finetune.svf_bounded import SVFBounded

VARIANTS = {
    "svf_bounded-svb": ("finetune.rule=svb",),
    "svf_bounded-clamp": ("finetune.rule=clamp", "finetune.epsilon=0"),
}
BAD_OPTIONS = {
    "finetune.rule=max": "rule=max.*relative, svb, clamp",
    "finetune.epsilon=-1": "epsilon=-1.*from 0 up",
}


def trained(network: Network) -> Counts:
    return {f"{c.name}.S": c.rank for c in convs(network, DEEP)}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1))


def values(module: nn.Sequential) -> list[torch.Tensor]:
    return [module[0].S, module[2].S]  # type: ignore[list-item]


@pytest.mark.parametrize("rule", ["relative", "svb", "clamp"])
def test_values_return_into_the_interval(rule: str) -> None:
    module = model()
    strategy = SVFBounded(rule=rule, epsilon=0.25)
    apply(module, strategy)
    first = [v.detach().clone() for v in values(module)]
    with torch.no_grad():
        for v in values(module):
            v.copy_(torch.linspace(-3.0, 9.0, v.numel()))
    wild = [v.detach().clone() for v in values(module)]
    strategy.after_step(ModuleStages(module))
    for now, was, start, groups in zip(values(module), wild, first, (2, 1), strict=True):
        if rule == "relative":
            expected = torch.minimum(torch.maximum(was, start / 1.25), start * 1.25)
        elif rule == "svb":
            expected = was.clamp(0.8, 1.25)
        else:
            top = [float(part.max()) * 1.25 for part in start.chunk(groups)]
            expected = torch.cat([p.clamp(max=t) for p, t in zip(was.chunk(groups), top, strict=True)])
        assert torch.allclose(now, expected, rtol=1e-6)
        assert not torch.equal(now, was)
        assert now.requires_grad


def test_bounds_are_those_of_the_pretrained_values_after_a_restart() -> None:
    """They travel in the state dict, so that an interrupted run does not widen them."""
    strategy = SVFBounded(rule="relative", epsilon=0.1)
    module = model()
    apply(module, strategy)
    with torch.no_grad():
        for v in values(module):
            v.mul_(1.1)
    other = model()
    for parameter in other.parameters():
        nn.init.constant_(parameter, 0.3)
    apply(other, strategy)
    other.load_state_dict(module.state_dict(), strict=True)
    with torch.no_grad():
        for v in values(other):
            v.mul_(2)
    strategy.after_step(ModuleStages(other))
    for a, b in zip(values(other), values(module), strict=True):
        assert torch.allclose(a, b, rtol=1e-6)


def test_a_zero_interval_keeps_the_pretrained_values() -> None:
    module, strategy = model(), SVFBounded(epsilon=0)
    apply(module, strategy)
    first = [v.detach().clone() for v in values(module)]
    with torch.no_grad():
        for v in values(module):
            v.add_(torch.randn_like(v))
    strategy.after_step(ModuleStages(module))
    assert all(torch.equal(a, b) for a, b in zip(first, values(module), strict=True))
