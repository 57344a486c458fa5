"""The comparison of a layer before and after it is tuned finds what is wrong, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.factorise import factorise, singular
from fss.finetune.layers.module_stages import ModuleStages
from fss.finetune.layers.probe import difference, sample
from fss.finetune.layers.scaled import ScaledLayer, swap_scaled
from fss.finetune.layers.tuned import TunedLayer

Factors = tuple[Tensor, Tensor, Tensor]


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 6, 3, 2, groups=3), nn.Conv2d(6, 6, 1, bias=False), nn.Linear(5, 3)
    ).to(dtype)


def shifted(weight: Tensor, groups: int, name: str) -> Factors:
    U, S, V = singular(weight, groups, name)
    return (U, S * 1.001, V) if name == "2" else (U, S, V)


def spoilt(weight: Tensor, groups: int, name: str) -> Factors:
    U, S, V = singular(weight, groups, name)
    return (U, S * float("nan"), V) if name == "1" else (U, S, V)


def transposed(weight: Tensor, groups: int, name: str) -> Factors:
    U, S, V = singular(weight, groups, name)
    return (U, S, V.transpose(-1, -2).contiguous()) if name == "0" else (U, S, V)


@pytest.mark.parametrize(
    ("factors", "text"),
    [
        (shifted, r"layers.*: 2 \(Conv2d: its output changes by 0\.0\d+, of values up to"),
        (spoilt, r"layers.*: 1 \(Conv2d: its output changes by nan"),
        (transposed, r"layers.*: 0 \(Conv2d: its output changes by \d"),
    ],
)
def test_wrong_factors_are_named_and_nothing_changes(factors: Callable[[Tensor, int, str], Factors], text: str) -> None:
    model = net()
    modules = list(model.modules())
    with pytest.raises(FssError, match=text):
        factorise(ModuleStages(model), (4,), factors)
    assert list(model.modules()) == modules


class Shifted(ScaledLayer):
    """Does not compute what it says."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.01


def test_a_layer_that_does_not_apply_its_weight_is_named() -> None:
    with pytest.raises(FssError, match=r"0 \(Conv2d: its output changes by 0\.01.*3 \(Linear: its output changes"):
        swap_scaled(ModuleStages(net()), (4,), lambda layer: Shifted(layer, (1, 1, 1, 1)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_passes(dtype: torch.dtype) -> None:
    model = net(dtype)
    random = torch.get_rng_state()
    assert len(factorise(ModuleStages(model), (4,)).layers) == 4
    assert torch.equal(torch.get_rng_state(), random)
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_truncation_is_no_difference_but_a_wrong_formula_is() -> None:
    def first(weight: Tensor, groups: int, name: str) -> Factors:
        matrix = weight.detach().reshape(groups, weight.shape[0] // groups, -1)
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        V = vt[:, :1].reshape(groups, *weight.shape[1:])
        return u[:, :, :1].reshape(-1, 1), s[:, :1].reshape(-1), V

    assert all(one.layer.S.numel() < one.layer.full_rank for one in factorise(ModuleStages(net()), (4,), first).layers)


def test_rotations_are_compared_with_what_they_merge_to() -> None:
    def doubled(weight: Tensor, groups: int, name: str) -> Factors:
        U, S, V = singular(weight, groups, name)
        return U, 2 * S, V

    with pytest.raises(FssError, match="its output changes"):
        factorise(ModuleStages(net()), (4,), doubled)
    done = factorise(ModuleStages(net()), (4,), doubled, exact=False)
    assert all(isinstance(one.layer, FactoredLayer) for one in done.layers)


def test_no_values_no_comparison() -> None:
    with torch.device("meta"):
        model = net()
    factorise(ModuleStages(model), (4,), shifted)
    assert all(isinstance(layer, TunedLayer) for layer in model)


def test_the_small_input_fits_every_geometry() -> None:
    for layer in (
        nn.Conv2d(3, 4, 7, 2, 3),
        nn.Conv2d(3, 4, 3, 1, 12, 12),
        nn.Conv2d(3, 4, (1, 9), padding="same"),
        nn.Conv2d(3, 4, 3, padding=20, padding_mode="reflect"),
        nn.Conv2d(3, 768, 16, 16),
    ):
        (x,) = sample(layer)
        assert x.numel() < 7000
        assert layer(x).numel() > 8
        assert torch.equal(x, sample(layer)[0])


def test_differences_in_words() -> None:
    one = torch.ones(2, 3)
    assert difference(one, one + 1e-6) == ""
    assert difference(one, one + 1e-3) == "its output changes by 0.001, of values up to 1"
    assert difference(one, one[:1]) == "its output has shape (1, 3) instead of (2, 3)"
    assert difference(one * float("inf"), one) == "its output is not finite before it is tuned"
    assert "changes by nan" in difference(one, one * float("nan"))
    assert difference(one.half(), (one + 1e-3).half()) == ""
