"""The decomposed convolution equals the plain one, and the release's three steps, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.layers.geometry import ConvGeometry
from fss.finetune.layers.tuned import TunedLayer

EXACT = 1e-12
CASES: dict[str, dict[str, Any]] = {
    "1x1": {"in_channels": 8, "out_channels": 6, "kernel_size": 1, "bias": False},
    "1x1-wide": {"in_channels": 4, "out_channels": 16, "kernel_size": 1},
    "3x3": {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "padding": 1, "bias": False},
    "3x3-bias": {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "padding": 1},
    "strided": {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "padding": 1, "stride": 2},
    "strided-1x1": {"in_channels": 6, "out_channels": 8, "kernel_size": 1, "stride": 2, "bias": False},
    "dilated": {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "padding": 4, "dilation": 4, "bias": False},
    "uneven": {"in_channels": 2, "out_channels": 3, "kernel_size": (3, 5), "stride": (2, 1), "padding": (0, 2)},
    "same": {"in_channels": 3, "out_channels": 5, "kernel_size": 3, "padding": "same", "dilation": 2},
    "grouped": {"in_channels": 6, "out_channels": 9, "kernel_size": 3, "padding": 1, "groups": 3},
    "depthwise": {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "groups": 4},
    "stem": {"in_channels": 3, "out_channels": 64, "kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
}


@pytest.fixture(params=sorted(CASES))
def conv(request: pytest.FixtureRequest) -> nn.Conv2d:
    torch.manual_seed(3)
    return nn.Conv2d(**CASES[request.param], dtype=torch.float64)


def make_image(conv: nn.Conv2d) -> Tensor:
    return torch.randn(2, conv.in_channels, 13, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def released(conv: nn.Conv2d, x: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Compute the release's formulation from torch.svd alone: conv V, scale by S, 1x1 conv U; return output and S."""
    groups = conv.groups
    outputs, values = [], []
    for g, part in enumerate(x.chunk(groups, dim=1)):
        per = conv.out_channels // groups
        w = conv.weight.detach()[g * per : (g + 1) * per]
        u, s, v = torch.svd(w.reshape(per, -1))
        keep = rank or len(s)
        s = s[:keep].clone().requires_grad_()
        inner = F.conv2d(
            part, v[:, :keep].T.reshape(keep, *w.shape[1:]), None, conv.stride, conv.padding, conv.dilation
        )
        scaled = inner * s.reshape(1, -1, 1, 1)
        outputs.append(F.conv2d(scaled, u[:, :keep, None, None]))
        values.append(s)
    out = torch.cat(outputs, dim=1)
    if conv.bias is not None:
        out = out + conv.bias.detach().reshape(1, -1, 1, 1)
    grads = torch.autograd.grad(out.square().sum(), values)
    return out.detach(), torch.cat(grads)


def test_output_equals_the_plain_convolution(conv: nn.Conv2d) -> None:
    layer = SVFConv2d.from_conv(conv)
    x = make_image(conv)
    with torch.no_grad():
        assert float((layer(x) - conv(x)).abs().max()) < EXACT


def test_output_and_gradient_equal_the_release(conv: nn.Conv2d) -> None:
    layer = SVFConv2d.from_conv(conv)
    x = make_image(conv)
    out = layer(x)
    expected, gradient = released(conv, x)
    assert float((out.detach() - expected).abs().max()) < EXACT
    (own,) = torch.autograd.grad(out.square().sum(), [layer.S])
    assert float(gradient.abs().max()) > 0.01
    assert float((own - gradient).abs().max()) < EXACT * max(1.0, float(gradient.abs().max()))


def test_truncated_rank_equals_the_release() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(**CASES["stem"], dtype=torch.float64)
    layer = SVFConv2d.from_conv(conv, rank_rounding=4)
    assert (layer.S.shape, layer.U.shape, layer.V.shape) == ((24,), (64, 24), (24, 3, 3, 3))
    x = make_image(conv)
    expected, gradient = released(conv, x, rank=24)
    out = layer(x)
    assert float((out.detach() - expected).abs().max()) < EXACT
    (own,) = torch.autograd.grad(out.square().sum(), [layer.S])
    assert torch.allclose(own, gradient, rtol=1e-12)
    assert float((out - conv(x)).detach().abs().max()) > 1e-3


def test_merge_after_training(conv: nn.Conv2d) -> None:
    layer = SVFConv2d.from_conv(conv)
    with torch.no_grad():
        layer.S.mul_(torch.linspace(0.5, 2.0, layer.S.numel(), dtype=torch.float64))
        layer.U.add_(0.01)
    merged = layer.merge()
    x = make_image(conv)
    with torch.no_grad():
        assert float((merged(x) - layer(x)).abs().max()) < 1e-11
        assert float((merged(x) - conv(x)).abs().max()) > 1e-3
    assert type(merged) is nn.Conv2d
    assert merged.weight.dtype == torch.float64
    for fact in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(merged, fact) == getattr(conv, fact), fact
    assert (merged.bias is None) == (conv.bias is None)


def test_untrained_merge_restores_the_weight(conv: nn.Conv2d) -> None:
    merged = SVFConv2d.from_conv(conv).merge()
    assert float((merged.weight - conv.weight).abs().max()) < EXACT
    if conv.bias is not None and merged.bias is not None:
        assert torch.equal(merged.bias, conv.bias)


def test_sizes(conv: nn.Conv2d) -> None:
    layer = SVFConv2d.from_conv(conv)
    assert isinstance(layer, TunedLayer)
    assert layer.plain_size == sum(p.numel() for p in conv.parameters())
    names = [n for n, _ in layer.named_parameters()]
    assert sorted(names) == sorted(["U", "S", "V"] + ["bias"] * (conv.bias is not None))


def test_geometry() -> None:
    conv = nn.Conv2d(4, 4, (3, 5), (2, 1), (1, 2), (1, 3), groups=2)
    assert ConvGeometry.of(conv) == ConvGeometry((2, 1), (1, 2), (1, 3), 2)
    assert ConvGeometry.of(nn.Conv2d(3, 3, 3, padding="same")).padding == "same"


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_padding_other_than_zeros_is_refused(mode: str) -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1, padding_mode=mode)
    with pytest.raises(ValueError, match=f"padding_mode='{mode}'.*'zeros'"):
        SVFConv2d.from_conv(conv)


def test_rank_rounding_below_one_is_refused() -> None:
    with pytest.raises(FssError, match="rank_rounding=0"):
        SVFConv2d.from_conv(nn.Conv2d(2, 2, 1), rank_rounding=0)


def test_float32_is_exact_to_rounding() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    x = torch.randn(1, 64, 9, 9)
    with torch.no_grad():
        assert float((SVFConv2d.from_conv(conv)(x) - conv(x)).abs().max()) < 5e-6
