"""Output and gradients of every replaced layer equal the plain formula W' of its strategy, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.finetune import apply, merge
from fss.finetune.base import Strategy
from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.rotation import random_rotation
from fss.finetune.layers.scaled import ScaledLayer
from fss.finetune.lora import LoRA, LoRALayer
from fss.finetune.rotation_scale import RotationScale
from fss.finetune.scale_in import ScaleIn
from fss.finetune.scale_out import ScaleOut
from fss.finetune.svf import SVF
from fss.finetune.svf_residual import SVFResidual
from fss.finetune.svf_rotated import SVFRotated

EXACT = 1e-11
PLAIN: dict[str, Callable[[], nn.Module]] = {
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


# strategy -> the trained values as leaves, and W' by group computed from them, written as the paper does
Formula = Callable[[Matrices], tuple[list[Tensor], Tensor]]


def svf(m: Matrices) -> tuple[list[Tensor], Tensor]:
    U, S, Vt = m.svd()
    s = (S * m.draw(*S.shape).detach()).requires_grad_()
    return [s], U @ torch.diag_embed(s) @ Vt


def svf_all(m: Matrices) -> tuple[list[Tensor], Tensor]:
    U, S, Vt = (t.clone().requires_grad_() for t in m.svd())
    return [U, S, Vt], U @ torch.diag_embed(S) @ Vt


def residual(m: Matrices) -> tuple[list[Tensor], Tensor]:
    U, S, Vt = m.svd()
    S = S.clone().requires_grad_()
    p = m.draw(*S.shape)
    return [p, S], U @ torch.diag_embed(S) @ torch.diag_embed(p.exp()) @ Vt


def rotated(m: Matrices) -> tuple[list[Tensor], Tensor]:
    U, S, Vt = m.svd()
    R = random_rotation(S.shape[1], m.groups, 3, m.name, m.W)
    s = (S * m.draw(*S.shape).detach()).requires_grad_()
    return [s], U @ R @ torch.diag_embed(s) @ R.mT @ Vt


def rotation_scale(m: Matrices) -> tuple[list[Tensor], Tensor]:
    R = random_rotation(m.W.shape[1], m.groups, 3, m.name, m.W)
    s = m.draw(m.groups, m.W.shape[1])
    return [s], R @ torch.diag_embed(s) @ R.mT @ m.W


def scale_out(m: Matrices) -> tuple[list[Tensor], Tensor]:
    s = m.draw(m.groups, m.W.shape[1])
    return [s], torch.diag_embed(s) @ m.W


def scale_in(m: Matrices) -> tuple[list[Tensor], Tensor]:
    s = m.draw(m.groups, m.W.shape[2])
    return [s], m.W @ torch.diag_embed(s)


def lora(m: Matrices) -> tuple[list[Tensor], Tensor]:
    A, B = m.draw(m.groups, 2, m.W.shape[2]), m.draw(m.groups, m.W.shape[1], 2)
    return [A, B], m.W + 3.0 / 2 * B @ A


CASES: dict[str, tuple[Callable[[], Strategy], Formula]] = {
    "svf": (lambda: SVF((4,)), svf),
    "svf-usv": (lambda: SVF((4,), ("U", "S", "V")), svf_all),
    "svf_residual": (lambda: SVFResidual((4,), train_s=True), residual),
    "svf_rotated": (lambda: SVFRotated((4,), rotation_seed=3), rotated),
    "rotation_scale": (lambda: RotationScale((4,), rotation_seed=3), rotation_scale),
    "scale_out": (lambda: ScaleOut((4,)), scale_out),
    "scale_in": (lambda: ScaleIn((4,)), scale_in),
    "lora": (lambda: LoRA((4,), rank=2, alpha=3.0), lora),
}


@pytest.fixture(params=sorted(PLAIN))
def plain(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return PLAIN[request.param]().double()


def inputs(plain: Any) -> Tensor:
    shape = (2, 4, plain.in_features) if isinstance(plain, nn.Linear) else (2, plain.in_channels, 9, 7)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def run(plain: Any, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(plain, nn.Linear):
        return F.linear(x, weight, plain.bias)
    return F.conv2d(x, weight, plain.bias, plain.stride, plain.padding, plain.dilation, plain.groups)


def trained(layer: nn.Module) -> Iterator[nn.Parameter]:
    """The values of a replaced layer that train, in the order of the formulas above."""
    names = {FactoredLayer: ("p", "U", "S", "V"), ScaledLayer: ("scale",), LoRALayer: ("A", "B")}
    kind = next(k for k in names if isinstance(layer, k))
    found = [getattr(layer, n) for n in names[kind]]
    return (p for p in found if p is not None and p.requires_grad)


@pytest.mark.parametrize("case", sorted(CASES))
def test_output_and_gradients_equal_the_formula(plain: Any, case: str) -> None:
    build, formula = CASES[case]
    groups = getattr(plain, "groups", 1)
    weight = plain.weight.detach()
    leaves, changed = formula(Matrices(weight.reshape(groups, weight.shape[0] // groups, -1), groups))
    model = nn.Sequential(copy.deepcopy(plain))
    strategy = build()
    strategy_report = apply(model, strategy)
    own = list(trained(model[0]))
    assert strategy_report.trainable_total == sum(p.numel() for p in own) == sum(v.numel() for v in leaves)
    if case != "svf-usv":  # U and V are compared where they start: any others would be no singular vectors
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
        if case != "svf-usv":
            assert float((model(x) - plain(x)).abs().max()) > 1e-3


def test_scaling_per_channel_scales_the_input() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, padding=1).double()
    model = nn.Sequential(copy.deepcopy(conv))
    assert apply(model, ScaleIn((4,), per="channel")).trainable == {"0.scale": 6}
    with torch.no_grad():
        model[0].scale.copy_(torch.arange(6.0).reshape(1, 1, 6, 1))
        x = inputs(conv)
        assert float((model(x) - conv(x * torch.arange(6.0).reshape(1, 6, 1, 1))).abs().max()) < EXACT


def test_rotations_are_orthogonal_and_drawn_from_seed_and_name_alone() -> None:
    like = torch.zeros(1)
    R = random_rotation(7, 3, 0, "layer2.0.conv1", like)
    assert R.dtype == torch.float64
    eye = torch.eye(7, dtype=torch.float64).expand(3, 7, 7)
    assert float((R @ R.mT - eye).abs().max()) < 1e-12
    torch.manual_seed(99)
    assert torch.equal(R, random_rotation(7, 3, 0, "layer2.0.conv1", like))
    state = torch.get_rng_state()
    for other in (random_rotation(7, 3, 1, "layer2.0.conv1", like), random_rotation(7, 3, 0, "layer2.0.conv2", like)):
        assert float((R - other).abs().max()) > 0.1
    assert torch.equal(state, torch.get_rng_state())
    assert float((R[0] - R[1]).abs().max()) > 0.1
    assert random_rotation(7, 1, 0, "x", torch.zeros(1, device="meta")).is_meta


def test_tuned_values_and_the_seed_give_the_rotated_network_back() -> None:
    """R is in no file of tuned values: it is drawn again."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)).double()
    one, two, other = (copy.deepcopy(plain) for _ in range(3))
    for model, seed in ((one, 4), (two, 4), (other, 5)):
        apply(model, RotationScale(rotation_seed=seed))
        with torch.no_grad():
            model[0].S.mul_(2)
            model[2].S[0] = 3
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    assert torch.equal(one(x), two(x))
    assert float((one(x) - other(x)).detach().abs().max()) > 0.01
