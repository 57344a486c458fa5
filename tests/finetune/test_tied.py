"""Layers and weights that stand at several places stay shared, or are refused by name."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.finetune.test_own_forward import SWAPPING, Same
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune import apply, merge
from fss.finetune.layers.surgery import is_tuned
from fss.finetune.svf import SVF


class Twice(nn.Module):
    """Uses one layer twice, under two names, and one block under two more."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.one = layer
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.nested = nn.ModuleDict({"two": layer, "again": self.block})

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.one(x))
        y: Tensor = self.nested["again"](self.nested["two"](x))
        return y


def output(model: nn.Module) -> Tensor:
    x = torch.randn(1, 4, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found: Tensor = model.eval()(x)
    return found


@pytest.mark.parametrize("name", SWAPPING)
@pytest.mark.parametrize("kind", [nn.Conv2d, Same])
def test_a_layer_at_two_places_is_replaced_once(kind: type[nn.Conv2d], name: str) -> None:
    torch.manual_seed(0)
    model = Twice(kind(4, 4, 3)).double()
    plain = copy.deepcopy(model)
    before, strategy = output(model), SWAPPING[name]()
    report = apply(model, strategy)
    assert model.one is model.nested["two"]
    assert is_tuned(model.one)
    assert model.block is model.nested["again"]
    assert report.plain_total == sum(p.numel() for p in plain.parameters())
    if name != "svf_rotated":
        assert torch.allclose(output(model), before, rtol=0, atol=1e-11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.1).add_(0.01)
    trained = output(model)
    assert not torch.allclose(trained, before, atol=1e-3)
    again = apply(model, strategy)
    assert again.trainable == report.trainable
    merge(model, strategy)
    assert model.one is model.nested["two"]
    assert type(model.one) is kind
    assert torch.allclose(output(model), trained, rtol=0, atol=1e-11)
    assert list(model.state_dict()) == list(plain.state_dict())


def test_a_layer_shared_with_an_untuned_stage_is_replaced_there_too() -> None:
    layer = nn.Conv2d(4, 4, 3)
    model = nn.Sequential(nn.Sequential(layer, nn.ReLU()), nn.Sequential(layer, nn.Conv2d(4, 4, 1))).double()
    before = output(model)
    report = apply(model, SVF((4,)), {1: ["0"], 4: ["1"]})
    assert report.trainable == {"0.0.S": 4, "1.1.S": 4}
    assert model[0][0] is model[1][0]  # type: ignore[index]
    assert torch.allclose(output(model), before, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", SWAPPING)
def test_a_weight_of_two_layers_is_refused_with_both_names(name: str) -> None:
    one, two, three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Embedding(4, 4)
    two.weight = one.weight
    model = nn.Sequential(one, nn.BatchNorm1d(4), two)
    with pytest.raises(
        FssError, match=r"0 \(Linear: it shares its weight with 2\).*2 \(Linear: it shares its weight wi"
    ):
        apply(model, SWAPPING[name]())
    assert model[0].weight is model[2].weight
    assert type(model[0]) is nn.Linear
    three.weight = one.weight  # tied to something that would not be replaced
    with pytest.raises(FssError, match=r"0 \(Linear: it shares its weight with 1\)"):
        apply(nn.ModuleList([one, three, nn.BatchNorm1d(3)]), SWAPPING[name]())


def test_a_bias_of_two_layers_stays_one() -> None:
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    two.bias = one.bias
    model = nn.Sequential(one, two)
    apply(model, SVF())
    assert model[0].bias is model[1].bias
