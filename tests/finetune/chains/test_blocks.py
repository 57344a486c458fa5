"""Blocks of any make against their plain form, in float64: outputs, gradients, and what they keep."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.finetune.chains.comparing import kept, lean, results, tuned
from tests.finetune.chains.sample_blocks import (
    Bottleneck,
    ConvNeXt,
    Inverted,
    Mlp,
    Shifted,
    Squeeze,
    TorchEncoder,
    Transformer,
)
from tests.finetune.chains.test_fuse import TIGHT, far
from torch import nn

from fss.finetune import ModuleStages
from fss.finetune.chains.blocks import LeanBlock, blocks, way
from fss.finetune.chains.fuse import fuse

MAP, TOKENS, LAST = (2, 6, 12, 9), (2, 9, 8), (2, 6, 9, 8)


def squeezed() -> nn.Module:
    block = Inverted(6, 6, 1, nn.SiLU)
    block.se = Squeeze(18)
    return block


# block, shape of its input, how it is run, greatest share of the plain form that balanced keeps
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str, float]] = {
    "inverted residual": (lambda: Inverted(6, 6, 1), MAP, "chain", 0.45),
    "inverted, strided": (lambda: Inverted(6, 5, 2), MAP, "chain", 0.35),
    "inverted, squeezed, SiLU": (squeezed, MAP, "again", 0.35),
    "bottleneck": (lambda: Bottleneck(6, 8), MAP, "chain", 0.65),
    "convnext": (ConvNeXt, (2, 8, 12, 9), "again", 0.35),
    "transformer": (Transformer, TOKENS, "again", 0.45),
    "shifted windows": (Shifted, LAST, "again", 0.45),
    "torch's attention": (TorchEncoder, TOKENS, "again", 0.45),
    "mlp": (lambda: Mlp(8), TOKENS, "again", 0.45),
    "a stack": (lambda: nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)), TOKENS, "again", 0.45),
}


@pytest.mark.parametrize("memory", ["fast", "balanced", "least"])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_plain_form(name: str, memory: Any) -> None:
    torch.manual_seed(0)
    build, shape, expected, _ = CASES[name]
    plain = tuned(build())
    made = lean(plain, memory)
    x = torch.randn(shape, dtype=torch.float64)
    for _ in range(2):  # the first call finds out how to run, the second one only does it
        ours, theirs = results(made, x), results(plain, x)
        assert len(ours) == len(theirs) >= 4
        assert all(far(a, b) < TIGHT for a, b in zip(ours, theirs, strict=True))
    assert way(made[0]) == ("as before" if memory == "fast" and expected == "again" else expected)
    with torch.no_grad():
        assert far(made(x), plain(x)) < TIGHT


@pytest.mark.parametrize("name", CASES)
def test_what_is_kept(name: str) -> None:
    torch.manual_seed(0)
    build, shape, _, share = CASES[name]
    plain = tuned(build())
    x = torch.randn(shape, dtype=torch.float64).requires_grad_()
    most = kept(plain, x)
    found = []
    for memory in ("fast", "balanced", "least"):
        made = lean(plain, memory)  # type: ignore[arg-type]
        found.append(kept(made, x))
        assert kept(made, x) == found[-1], "the first call counts the trial runs"
    assert found[1] <= share * most
    assert found[2] <= found[1] <= found[0] <= most


@pytest.mark.parametrize("name", ["inverted residual", "convnext", "transformer", "torch's attention"])
def test_autocast(name: str) -> None:
    torch.manual_seed(0)
    build, shape, expected, _ = CASES[name]
    plain = tuned(build(), torch.float32)
    made = lean(plain, "balanced")
    x = torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = results(made, x), results(plain, x)
    assert way(made[0]) == expected
    assert [a.dtype for a in ours] == [b.dtype for b in theirs]
    joined = [torch.cat([t.flatten().float() for t in found]) for found in (ours, theirs)]
    assert float(torch.cosine_similarity(*joined, dim=0)) > 0.99


@pytest.mark.parametrize("name", ["inverted residual", "convnext"])
def test_copies_and_pickles(name: str) -> None:
    torch.manual_seed(0)
    build, shape, expected, _ = CASES[name]
    made = lean(tuned(build()), "balanced")
    x = torch.randn(shape, dtype=torch.float64)
    wanted = results(made, x)
    for twin in (lean(made, "balanced"), pickle.loads(pickle.dumps(made))):
        assert isinstance(twin[0], LeanBlock)
        assert all(torch.equal(a, b) for a, b in zip(results(twin, x), wanted, strict=True))
        assert way(twin[0]) == expected
        assert twin.state_dict().keys() == made.state_dict().keys()


def test_undone() -> None:
    plain = tuned(ConvNeXt())
    made = lean(plain, "balanced")
    made(torch.randn(1, 8, 5, 5, dtype=torch.float64))
    fuse(ModuleStages(made), "plain")  # type: ignore[arg-type]
    assert [type(m) for m in made.modules()] == [type(m) for m in plain.modules()]
    assert [set(vars(m)) - {"lean"} for m in made.modules()] == [set(vars(m)) - {"lean"} for m in plain.modules()]


def test_a_stage_is_no_block_and_a_block_is_one() -> None:
    """What is computed again at a time must stay small."""

    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b1, self.b2 = Inverted(6, 6, 1), Inverted(6, 6, 1)

    net = nn.Sequential(nn.Sequential(ConvNeXt(), Transformer()), Stage(), Squeeze(6))
    found = [type(m).__name__ for m in blocks(tuned(net)[0], ())]
    assert found == ["ConvNeXt", "Mlp", "Transformer", "Attention", "Mlp", "Inverted", "Inverted", "Squeeze"]


@pytest.mark.parametrize("name", CASES)
def test_meta_device(name: str) -> None:
    """Shapes alone show nothing, and are no reason to fail."""
    build, shape, expected, _ = CASES[name]
    plain = tuned(build())
    made = lean(plain, "balanced").to("meta")
    wanted = plain(torch.randn(shape, dtype=torch.float64)).shape
    assert made(torch.empty(shape, device="meta", dtype=torch.float64)).shape == wanted
    made = lean(plain, "balanced")
    made(torch.randn(shape, dtype=torch.float64))
    assert way(made[0]) == expected
