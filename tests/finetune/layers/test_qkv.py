"""Query, key and value in one linear layer, decomposed as one matrix or as three."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.contracts.layer_norms import DEEP_RANKS
from tests.contracts.strategies import tiny
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune import apply, merge
from fss.finetune.layers.factored import SVFLinear
from fss.finetune.svf import SVF


class Block(nn.Module):
    """Attention of one head; ``mixed`` sets an attribute of blocks that stack otherwise."""

    def __init__(self, c_in: int = 4, rows: int = 12, **mixed: object) -> None:
        super().__init__()
        self.qkv = nn.Linear(c_in, rows)
        self.proj = nn.Linear(rows // 3, c_in)
        for name, value in mixed.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return x + self.proj(F.scaled_dot_product_attention(q, k, v))


def test_each_third_has_its_own_singular_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Block()).double()
    plain = copy.deepcopy(model)
    report = apply(model, SVF(qkv="three", memory="plain"))
    assert report.trainable == {"0.qkv.S": 12, "0.proj.S": 4}
    layer = model[0].qkv
    assert isinstance(layer, SVFLinear)
    for third, weight in zip(layer.S.chunk(3), plain[0].qkv.weight.chunk(3), strict=True):
        assert torch.allclose(third, torch.linalg.svdvals(weight))
    assert apply(nn.Sequential(Block()), SVF()).trainable == {"0.qkv.S": 4, "0.proj.S": 4}


@pytest.mark.parametrize("memory", ["plain", "balanced", "least"])
def test_output_gradients_and_merging(memory: str) -> None:
    """Against the gradient of the plain weight: dL/dS_r = u_r^T (dL/dW_third) v_r."""
    torch.manual_seed(0)
    model = nn.Sequential(Block()).double()
    plain = copy.deepcopy(model)
    apply(model, SVF(qkv="three", memory=memory))
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    for one in (plain, model):
        one(x).square().sum().backward()
    assert torch.allclose(model(x), plain(x), atol=1e-12)
    layer = model[0].qkv
    expected = torch.cat(
        [torch.einsum("or,oi,ri->r", u, g, v) for u, g, v in zip(
            layer.U.chunk(3), plain[0].qkv.weight.grad.chunk(3), layer.V.chunk(3), strict=True
        )]
    )  # fmt: skip
    assert torch.allclose(layer.S.grad, expected, atol=1e-10)
    with torch.no_grad():
        layer.S.mul_(1.5)
    changed = model(x)
    merge(model, SVF(qkv="three"))
    assert type(model[0].qkv) is nn.Linear
    assert torch.allclose(model(x), changed, atol=1e-12)


def test_other_layers_and_a_second_injection_are_unaffected() -> None:
    backbone, strategy = tiny(kind="layer_norms"), SVF(qkv="three")
    first = strategy.apply(backbone)
    assert first.trainable == DEEP_RANKS | {"layer4.0.qkv.S": 18}
    assert strategy.apply(backbone).trainable == first.trainable


def test_torchs_attention_is_three_either_way() -> None:
    for qkv in ("one", "three"):
        model = nn.Sequential(nn.MultiheadAttention(4, 2))
        assert apply(model, SVF(qkv=qkv)).trainable == {"0.in_proj.S": 12, "0.out_proj.S": 4}


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "head by head": lambda: Block(head_first=True),
    "head by head, by widths": lambda: Block(val_dim=4),
    "key and value alone": lambda: Block(use_global=True),
    "no thirds": lambda: Block(rows=10),
}


@pytest.mark.parametrize("kind", sorted(BLOCKS))
def test_what_is_not_three_matrices_is_refused(kind: str) -> None:
    model = nn.Sequential(BLOCKS[kind](), Block())
    with pytest.raises(FssError, match=r"qkv=three: 0\.qkv does not hold query.*finetune\.qkv=one"):
        apply(model, SVF(qkv="three"))
    assert type(model[0].qkv) is nn.Linear
    apply(model, SVF())


def test_timms_transformers() -> None:
    timm = pytest.importorskip("timm", reason="needs the optional dependency timm")
    with torch.device("meta"):
        for qkv, values in (("one", 384), ("three", 3 * 384)):
            model = timm.create_model("vit_small_patch14_dinov2", depth=2, num_classes=0)
            report = apply(model, SVF(qkv=qkv))
            assert report.trainable_total == 384 + 2 * (values + 3 * 384)
        model = timm.create_model("tiny_vit_5m_224", num_classes=0)
        with pytest.raises(FssError, match="qkv and 9 more does not hold query"):
            apply(model, SVF(qkv="three"))
