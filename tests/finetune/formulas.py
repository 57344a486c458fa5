"""Compares a replaced layer with the plain formula W' of its strategy, in float64: output, gradients and merging."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.finetune import apply, merge
from fss.finetune.base import Strategy

EXACT = 1e-11
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "1x1": lambda: nn.Conv2d(8, 6, 1, bias=False),
    "strided": lambda: nn.Conv2d(6, 8, 3, 2, 1),
    "dilated": lambda: nn.Conv2d(6, 8, 3, padding=2, dilation=2, bias=False),
    "grouped": lambda: nn.Conv2d(6, 9, 3, padding=1, groups=3),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "linear": lambda: nn.Linear(7, 5),
    "linear-wide": lambda: nn.Linear(3, 6, bias=False),
}


@dataclass
class Matrices:
    """A layer's weight by group, (groups, Co / groups, Ci / groups * k * k), and random values for what trains."""

    W: Tensor
    groups: int
    name: str = "0"

    def draw(self, *shape: int) -> Tensor:
        noise = torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        return (0.5 + noise).requires_grad_()

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        U, S, Vt = torch.linalg.svd(self.W, full_matrices=False)
        signs = torch.stack([torch.stack([c[c.abs().argmax()].sign() for c in u.T]) for u in U])  # as ours
        return U * signs[:, None, :], S, Vt * signs[:, :, None]


Formula = Callable[[Matrices], tuple[list[Tensor], Tensor]]
"""The trained values as leaves, and W' by group computed from them, written as the paper does."""


def inputs(plain: Any) -> Tensor:
    shape = (2, 4, plain.in_features) if isinstance(plain, nn.Linear) else (2, plain.in_channels, 9, 7)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def run(plain: Any, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(plain, nn.Linear):
        return F.linear(x, weight, plain.bias)
    return F.conv2d(x, weight, plain.bias, plain.stride, plain.padding, plain.dilation, plain.groups)


def trained_values(layer: nn.Module, names: tuple[str, ...]) -> list[nn.Parameter]:
    """The values of a replaced layer that train, in the order of the names."""
    found = [getattr(layer, n) for n in names]
    return [p for p in found if p is not None and p.requires_grad]


def check_formula(kind: str, strategy: Strategy, names: tuple[str, ...], formula: Formula, draw: bool = True) -> None:
    """Compare one kind of layer with the formula.

    Args:
        kind: key of ``LAYERS``.
        strategy: for the layer, which is stage 4 of its model.
        names: attributes of the replaced layer that train, in the order of the formula's leaves.
        formula: the plain one.
        draw: give the layer the formula's values; False compares both where they start.
    """
    torch.manual_seed(1)
    plain: Any = LAYERS[kind]().double()
    groups = getattr(plain, "groups", 1)
    weight = plain.weight.detach()
    leaves, changed = formula(Matrices(weight.reshape(groups, weight.shape[0] // groups, -1), groups))
    model = nn.Sequential(copy.deepcopy(plain))
    report = apply(model, strategy)
    own = trained_values(model[0], names)
    assert report.trainable_total == sum(p.numel() for p in own) == sum(v.numel() for v in leaves)
    if draw:
        with torch.no_grad():
            for parameter, value in zip(own, leaves, strict=True):
                parameter.copy_(value.reshape(parameter.shape))
    x = inputs(plain)
    expected, got = run(plain, x, changed.reshape(weight.shape)), model(x)
    assert float((got - expected).detach().abs().max()) < EXACT
    target = torch.randn(got.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    wanted = torch.autograd.grad((expected * target).sum(), leaves)
    gradients = torch.autograd.grad((got * target).sum(), own)
    for a, b in zip(gradients, wanted, strict=True):
        assert float(b.abs().max()) > 1e-3
        assert float((a - b.reshape(a.shape)).abs().max()) < EXACT * max(1.0, float(b.abs().max()))
    merge(model, strategy)
    assert type(model[0]) is type(plain)
    with torch.no_grad():
        assert float((model(x) - got).abs().max()) < EXACT
        if draw:
            assert float((model(x) - plain(x)).abs().max()) > 1e-3
