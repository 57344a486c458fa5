"""The linear layer as one function against its formula, in float64."""

from __future__ import annotations

import pytest
import torch
from tests.finetune.chains.test_fuse import TIGHT, far, run
from torch import Tensor

from fss.finetune.chains import lean_layer, linear
from fss.finetune.layers.factored import SVFLinear
from fss.finetune.layers.geometry import LinearGeometry
from fss.finetune.layers.svd import decompose

CASES = {
    "wide": (5, 12, 1, True),
    "narrow": (12, 5, 1, False),
    "stacked": (6, 18, 3, True),
    "stacked, bare": (6, 18, 3, False),
}


def layer(kind: str, rank: int | None = None) -> SVFLinear:
    torch.manual_seed(0)
    c_in, c_out, groups, bias = CASES[kind]
    weight = torch.randn(c_out, c_in, dtype=torch.float64)
    factors = decompose(weight, rank or min(c_in, c_out // groups), groups)
    made = SVFLinear(LinearGeometry(groups), *factors, torch.randn(c_out, dtype=torch.float64) if bias else None)
    for frozen in (made.U, made.V):
        frozen.requires_grad_(False)
    return made


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("kind", CASES)
def test_equal_to_the_formula(kind: str, rank: int | None) -> None:
    one = layer(kind, rank)
    for shape in ((4, 3), (2, 3, 4), (1,), ()):
        x = torch.randn(*shape, CASES[kind][0], dtype=torch.float64)
        for residual in (False, True):
            if residual and one.p is None:
                one.make_residual()
            trained = [one.S] if one.p is None else [one.S, one.p]
            (y,), gradients = run(lambda x: lean_layer.run(one, x), x, trained)
            (wanted,), expected = run(one.formula, x, trained)
            assert far(y, wanted) < TIGHT
            assert all(far(a, b) < TIGHT for a, b in zip(gradients, expected, strict=True))
            with torch.no_grad():
                assert far(lean_layer.run(one, x), wanted) < TIGHT


def test_gradcheck() -> None:
    one = layer("stacked")
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, S: Tensor) -> Tensor:
        one._parameters.pop("S", None)
        one.S = S  # type: ignore[assignment]
        return linear.linear(one, x)

    torch.autograd.gradcheck(function, (x, one.S.detach().clone().requires_grad_()))


def test_what_trains_besides_s_gets_its_gradient() -> None:
    for name in ("U", "V", "bias"):
        one = layer("wide")
        assert isinstance(one.bias, Tensor)
        for value in (one.U, one.V, one.bias):
            value.requires_grad_(value is getattr(one, name))
        x = torch.randn(3, 5, dtype=torch.float64)
        found = torch.autograd.grad(lean_layer.run(one, x).square().sum(), getattr(one, name))
        wanted = torch.autograd.grad(one.formula(x).square().sum(), getattr(one, name))
        assert torch.equal(found[0], wanted[0])


def test_float64_is_not_cast_by_autocast() -> None:
    one = layer("wide")
    x = torch.randn(3, 5, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert lean_layer.run(one, x).dtype is torch.float64
        made = one.float()
        y = lean_layer.run(made, x.float())
    assert y.dtype is torch.bfloat16
    y.float().square().sum().backward()
    assert made.S.grad is not None
    assert made.S.grad.dtype is torch.float32
