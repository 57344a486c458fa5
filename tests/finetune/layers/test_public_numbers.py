"""A replacement answers what other modules may read of the plain layer: its numbers, weight and bias."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.finetune.test_own_forward import SWAPPING
from torch import Tensor, nn

from fss.finetune import apply, merge
from fss.finetune.layers.tuned import TunedLayer
from fss.finetune.svf import SVF

FACTS = {
    nn.Conv2d: (
        *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
        *("transposed", "output_padding"),
    ),
    nn.Linear: ("in_features", "out_features"),
    nn.MultiheadAttention: (
        *("embed_dim", "kdim", "vdim", "num_heads", "head_dim", "dropout", "batch_first", "add_zero_attn"),
        *("bias_k", "bias_v"),
    ),
}
LAYERS = {
    "conv": lambda: nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 2), (1, 2), groups=2),
    "same": lambda: nn.Conv2d(4, 6, 3, padding="same", bias=False),
    "linear": lambda: nn.Linear(3, 5),
}


class Reads(nn.Module):
    """Reads weight and bias of a layer instead of calling it, as BEiT and EVA do."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm1d(layer.out_features)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == self.layer.in_features
        y: Tensor = self.norm(F.linear(x, self.layer.weight, self.layer.bias))
        return y


@pytest.mark.parametrize("name", SWAPPING)
@pytest.mark.parametrize("kind", LAYERS)
def test_numbers_weight_and_bias(kind: str, name: str) -> None:
    torch.manual_seed(0)
    plain = LAYERS[kind]().double()
    model = nn.Sequential(copy.deepcopy(plain), nn.BatchNorm2d(6))
    apply(model, SWAPPING[name]())
    tuned = model[0]
    assert isinstance(tuned, TunedLayer)
    for fact in FACTS[type(plain)]:
        assert getattr(tuned, fact) == getattr(plain, fact), fact
    other = nn.Linear if isinstance(plain, nn.Conv2d) else nn.Conv2d
    assert not [fact for fact in FACTS[other] if hasattr(tuned, fact)]
    assert tuned.weight.shape == plain.weight.shape
    if name != "svf_rotated":
        assert torch.allclose(tuned.weight, plain.weight, rtol=0, atol=1e-13)
    assert (tuned.bias is None) == (plain.bias is None)
    assert plain.bias is None or torch.equal(tuned.bias, plain.bias)


@pytest.mark.parametrize("name", SWAPPING)
def test_values_reach_a_module_that_reads_the_weight(name: str) -> None:
    torch.manual_seed(0)
    model = Reads(nn.Linear(4, 3)).double().eval()
    x, strategy = torch.randn(5, 4, dtype=torch.float64), SWAPPING[name]()
    apply(model, strategy)
    before = model(x)
    before.square().sum().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(g is not None for g in grads.values())
    assert {n for n, g in grads.items() if bool(g.any())} == grads.keys() - {"layer.A"}  # B starts at zero
    with torch.no_grad():
        for parameter in (p for n, p in model.named_parameters() if n in grads):
            parameter.mul_(1.5).add_(0.2)
    trained = model(x)
    assert not torch.allclose(trained, before, atol=1e-3)
    merge(model, strategy)
    assert torch.allclose(model(x), trained, rtol=0, atol=1e-12)


def test_attention() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)).double()
    plain = copy.deepcopy(model[0])
    apply(model, SVF())
    tuned = model[0]
    for fact in FACTS[nn.MultiheadAttention]:
        assert getattr(tuned, fact) == getattr(plain, fact), fact
    for name in ("in_proj_weight", "in_proj_bias"):
        assert torch.allclose(getattr(tuned, name), getattr(plain, name), rtol=0, atol=1e-13)
    parts = [tuned.q_proj_weight, tuned.k_proj_weight, tuned.v_proj_weight]
    assert torch.equal(torch.cat(parts), tuned.in_proj_weight)
    assert torch.allclose(tuned.out_proj.weight, plain.out_proj.weight, rtol=0, atol=1e-13)
    assert torch.equal(tuned.out_proj.bias, plain.out_proj.bias)
