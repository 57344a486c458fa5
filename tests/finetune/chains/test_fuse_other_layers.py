"""Blocks with layers that a chain does not know, and with hooks inside, compute what their layers say."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tests.finetune.chains.test_fuse import NETS, TIGHT, Holder, far, run, stack, tuned
from torch import Tensor, nn

from fss.finetune.chains.fuse import fuse
from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.svf import SVF


class Bent(nn.ReLU):
    """Inherits from ReLU and computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.3 * x)


class Doubled(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Halved(SVFConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


def _patched() -> nn.Module:
    relu = nn.ReLU()
    relu.forward = lambda x: 0.5 * x.relu()  # type: ignore[method-assign,assignment]
    return relu


UNUSUAL: dict[str, Callable[[nn.Module], None]] = {
    "leaky": lambda block: setattr(block, "relu", nn.LeakyReLU(0.3)),
    "relu6": lambda block: setattr(block, "relu", nn.ReLU6()),
    "gelu": lambda block: setattr(block, "relu", nn.GELU()),
    "subclassed relu": lambda block: setattr(block, "relu", Bent()),
    "patched relu": lambda block: setattr(block, "relu", _patched()),
    "subclassed norm": lambda block: setattr(block.bn2, "__class__", Doubled),
    "subclassed convolution": lambda block: setattr(block.conv2, "__class__", Halved),
}


@pytest.mark.parametrize("change", UNUSUAL)
@pytest.mark.parametrize("name", ["resnet50", "resnet18"])
def test_a_block_with_other_layers_computes_what_they_say(name: str, change: str) -> None:
    """16 % off with a LeakyReLU before."""
    torch.manual_seed(0)
    nets = [NETS[name]().double() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net, memory in zip(nets, ("balanced", "plain"), strict=True):
        net.norm_mode = "eval"
        SVF(memory=memory).apply(net)
        for block in net.layer3:
            UNUSUAL[change](block)
        net.train()
    x = torch.randn(1, 3, 33, 33, dtype=torch.float64)
    found, expected = (run(net, x, [net.layer3[0].conv1.S]) for net in nets)
    assert all(far(a, b) < TIGHT for a, b in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True))


@pytest.mark.parametrize("kind", [Bent, nn.ReLU6, nn.LeakyReLU])
def test_a_stack_with_another_activation_computes_what_it_says(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    plain = stack("3x3", True, None)
    plain.append(kind())
    fused = copy.deepcopy(plain)
    fuse(Holder(fused), "least")  # type: ignore[arg-type]
    x = 9 * torch.randn(2, 5, 13, 11, dtype=torch.float64)
    assert far(fused(x), plain(x)) < TIGHT


@pytest.mark.parametrize(
    "kind",
    ["register_full_backward_hook", "register_full_backward_pre_hook", "register_forward_hook",
     "register_forward_pre_hook"],
)  # fmt: skip
def test_hooks_within_a_block_fire(kind: str) -> None:
    net = tuned("balanced")
    calls: list[str] = []
    getattr(net.layer3[1].conv2, kind)(lambda *_: calls.append(kind))
    net(torch.randn(1, 3, 33, 33))[-1].sum().backward()
    assert calls == [kind]


def test_hooks_of_all_modules_fire() -> None:
    net = tuned("balanced")
    calls: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(module))
    try:
        net(torch.randn(1, 3, 33, 33))
    finally:
        handle.remove()
    assert net.layer3[1].conv2 in calls
