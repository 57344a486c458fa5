"""Chains against the plain formula, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fss.backbones.resnet import ResNet
from fss.backbones.vgg import VGG
from fss.errors import FssError
from fss.finetune.chains.chain import chain
from fss.finetune.chains.fuse import FusedBottleneck, FusedSequential, fuse
from fss.finetune.chains.memory import keep
from fss.finetune.chains.unit import Unit, Values, right, right_back
from fss.finetune.layers.factored import SVFConv2d
from fss.finetune.layers.geometry import ConvGeometry
from fss.finetune.svf import SVF

TIGHT = 1e-10
MEMORIES = ("fast", "balanced", "least")
NETS: dict[str, Callable[[], Any]] = {
    "resnet50": lambda: ResNet(50, width=8),
    "resnet50 deep uniform": lambda: ResNet(50, stem="deep", dilation="uniform", width=8),
    "resnet18": lambda: ResNet(18, width=8),
    "vgg16": lambda: VGG(16, width=8),
}
CONVS = {
    "1x1": (6, 9, 1, {}),
    "1x1 strided": (6, 9, 1, {"stride": 2}),
    "3x3": (5, 7, 3, {"padding": 1}),
    "3x3 strided": (5, 7, 3, {"padding": 1, "stride": 2}),
    "3x3 dilated": (5, 7, 3, {"padding": 4, "dilation": 4}),
    "3x3 oblong": (5, 7, (3, 1), {"padding": (1, 0), "stride": (1, 2)}),
    "grouped": (8, 12, 3, {"padding": 1, "groups": 4}),
    "depthwise": (6, 6, 3, {"padding": 1, "groups": 6}),
    "depthwise strided": (6, 6, 5, {"padding": 4, "dilation": 2, "stride": 2, "groups": 6, "bias": True}),
    "depthwise padded far": (6, 6, 5, {"padding": (8, 6), "dilation": (4, 3), "groups": 6}),
    "one output per group": (12, 6, 3, {"padding": 1, "groups": 6}),
    "two outputs per channel": (6, 12, 3, {"padding": 1, "groups": 6}),
    "wide": (3, 40, 3, {"padding": 1}),
    "narrow": (40, 3, 1, {}),
    "bias": (5, 7, 3, {"padding": 1, "bias": True}),
}


def unusual(model: nn.Module) -> None:
    """Give batch norm statistics far from 0 and 1, and affine values of both signs."""
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(3.0, 2.0)
        norm.running_var.uniform_(1e-3, 30.0)
        norm.weight.data.normal_()
        norm.bias.data.normal_()


def far(a: Tensor, b: Tensor) -> float:
    with torch.no_grad():
        return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def stack(kind: str, norm: bool, act: type[nn.Module] | None) -> nn.Sequential:
    c_in, c_out, kernel, options = CONVS[kind]
    conv = SVFConv2d.from_conv(nn.Conv2d(c_in, c_out, kernel, **{"bias": False, **options}))
    if conv.bias is not None:
        conv.bias.requires_grad_(False)
    for frozen in (conv.U, conv.V):
        frozen.requires_grad_(False)
    layers: list[nn.Module] = [conv]
    layers += [nn.BatchNorm2d(c_out).requires_grad_(False)] if norm else []
    layers += [act(inplace=True)] if act is not None else []
    made = nn.Sequential(*layers).double().eval()
    unusual(made)
    return made


class Holder:
    """As much of a backbone as ``fuse`` looks at."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def stage(self, index: int) -> nn.Module:
        return self.module if index == 4 else nn.Identity()


def run(model: Callable[[Tensor], Any], x: Tensor, parameters: list[nn.Parameter]) -> tuple[list[Tensor], list[Tensor]]:
    """Return outputs, and gradients of input and parameters, for a loss that weighs every element differently."""
    x = x.clone().requires_grad_()
    outputs = model(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    weights = torch.Generator().manual_seed(1)
    loss = sum((o * torch.randn(o.shape, generator=weights, dtype=o.dtype)).sum() for o in outputs)
    return outputs, list(torch.autograd.grad(loss, [x, *parameters]))


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("act", [None, nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kind", CONVS)
def test_one_convolution(kind: str, norm: bool, act: type[nn.Module] | None, memory: Any) -> None:
    torch.manual_seed(0)
    plain = stack(kind, norm, act)
    fused = copy.deepcopy(plain)
    fuse(Holder(fused), memory)  # type: ignore[arg-type]
    assert type(fused) is FusedSequential
    x = torch.randn(2, CONVS[kind][0], 13, 11, dtype=torch.float64)
    (a,), ga = run(fused, x, [fused[0].S])
    (b,), gb = run(plain, x, [plain[0].S])
    assert far(a, b) < TIGHT
    assert all(far(p, q) < TIGHT for p, q in zip(ga, gb, strict=True))
    with torch.no_grad():
        assert far(fused(x), plain(x)) < TIGHT
        assert far(fused(x[:1, :, :3, :3]), plain(x[:1, :, :3, :3])) < TIGHT  # few positions: two steps are cheaper


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", NETS)
def test_backbones(name: str, memory: Any) -> None:
    torch.manual_seed(0)
    plain = NETS[name]().double()
    unusual(plain)
    SVF(memory="plain").apply(plain)
    plain.train()
    fused = copy.deepcopy(plain)
    fuse(fused, memory)
    x = torch.randn(2, 3, 49, 49, dtype=torch.float64)
    a, ga = run(fused, x, [p for p in fused.parameters() if p.requires_grad])
    b, gb = run(plain, x, [p for p in plain.parameters() if p.requires_grad])
    assert all(far(p, q) < TIGHT for p, q in zip([*a, *ga], [*b, *gb], strict=True))
    assert len(ga) > 5
    assert fused.state_dict().keys() == plain.state_dict().keys()


def gradcheck_units(memory: str, residual: bool) -> tuple[list[Unit], list[Values]]:
    torch.manual_seed(0)
    shapes = [(3, 4, 1, 1), (4, 4, 3, 2), (4, 5, 1, 1)]
    kept = keep([r * r for r in (3, 4, 4)], [12, 16, 20], memory)  # type: ignore[arg-type]
    units, values = [], []
    for index, (c_in, c_out, k, d) in enumerate(shapes):
        conv = SVFConv2d.from_conv(nn.Conv2d(c_in, c_out, k, padding=d * (k // 2), dilation=d).double())
        assert isinstance(conv.geometry, ConvGeometry)
        units.append(Unit(conv.geometry, kept[index], act="relu" if index < 2 or residual else "none"))
        tensors = (conv.U.detach(), conv.S.detach(), conv.V.detach())
        values.append(Values(*tensors, torch.rand(c_out).double() - 0.3, torch.randn(c_out).double()))
    return units, values


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("memory", MEMORIES)
def test_gradcheck(memory: str, residual: bool) -> None:
    units, values = gradcheck_units(memory, residual)
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    added = torch.randn(2, 5, 6, 5, dtype=torch.float64, requires_grad=True) if residual else None
    singular = [v.S.clone().requires_grad_() for v in values]

    def function(x: Tensor, *rest: Tensor) -> Tensor:
        *given, last = rest if residual else (*rest, None)
        made = [Values(v.U, s, v.V, v.scale, v.shift) for v, s in zip(values, given, strict=True)]  # type: ignore[arg-type]
        return chain(x, last, units, made)

    torch.autograd.gradcheck(function, (x, *singular, *([added] if residual else [])))


def tuned(memory: Any = "balanced") -> ResNet:
    torch.manual_seed(0)
    net = ResNet(50, width=8)
    SVF(memory=memory).apply(net)
    net.train()
    return net


def test_input_gradients_stop_where_nothing_needs_them() -> None:
    net = tuned()
    assert not net.stage(1)(net.stage(0)(torch.randn(1, 3, 33, 33))).requires_grad
    net(torch.randn(1, 3, 33, 33))[-1].sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())


def test_autocast_keeps_half_the_bytes_and_full_precision_gradients() -> None:
    net, x, sizes = tuned(), torch.randn(1, 3, 65, 65), []
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    grads = []
    for enabled in (False, True):
        seen: dict[int, int] = {}

        def pack(t: Tensor, seen: dict[int, int] = seen) -> Tensor:
            if t.untyped_storage().data_ptr() not in parameters:
                seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
            torch.autocast("cpu", torch.bfloat16, enabled=enabled),
        ):
            net(x)[-1].mean().backward()
        sizes.append(sum(seen.values()))
        grads.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
        net.zero_grad()
    assert sizes[1] < 0.6 * sizes[0]
    assert all(g.dtype == torch.float32 for g in grads[1])
    joined = [torch.cat([g.flatten() for g in gs]) for gs in grads]
    assert float(torch.cosine_similarity(*joined, dim=0)) > 0.98


def test_activation_checkpointing() -> None:
    net, x = tuned(), torch.randn(1, 3, 33, 33)
    wanted = torch.autograd.grad(net(x)[-1].sum(), [p for p in net.parameters() if p.requires_grad])
    y = net.stage(1)(net.stage(0)(x)).requires_grad_()
    for index in (2, 3, 4):
        y = checkpoint(net.stage(index), y, use_reentrant=False)
    found = torch.autograd.grad(y.sum(), [p for p in net.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_compiled() -> None:
    net, x = tuned(), torch.randn(1, 3, 33, 33)
    trained = [p for p in net.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(net(x)[-1].sum(), trained)
    found = torch.autograd.grad(torch.compile(net, backend="aot_eager")(x)[-1].sum(), trained)
    assert all(far(a, b) < 1e-4 for a, b in zip(found, wanted, strict=True))


def test_channels_last() -> None:
    net, x = tuned().double(), torch.randn(2, 3, 49, 49, dtype=torch.float64)
    trained = [p for p in net.parameters() if p.requires_grad]
    a, ga = run(net, x, trained)
    b, gb = run(net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), trained)  # type: ignore[call-overload]
    assert all(far(p, q) < TIGHT for p, q in zip([*a, *ga], [*b, *gb], strict=True))


def test_gradients_keep_the_layout_of_the_images() -> None:
    """A single gradient in the other layout makes every operation before it convert."""
    geometry = ConvGeometry((2, 2), (2, 2), (2, 2), groups=2)
    values = Values(torch.randn(8, 3), torch.rand(6), torch.randn(6, 5, 3, 3), torch.rand(8), torch.rand(8))
    x = torch.randn(2, 10, 12, 15)
    unit = Unit(geometry, keep=True, act="none")
    for form in (torch.contiguous_format, torch.channels_last):
        inner = right(unit, values, x.to(memory_format=form))
        assert right_back(unit, values, inner, x.shape).is_contiguous(memory_format=form)


@pytest.mark.parametrize("change", ["norm trains", "norm moves", "U trains", "hook", "residual S"])
def test_what_a_chain_cannot_do_runs_as_before(change: str) -> None:
    """The result must be that of the plain block, gradients of the other parameters included."""
    nets = [tuned("balanced"), tuned("plain")]
    for net in nets:
        block = net.layer3[1]
        if change == "norm trains":
            block.bn2.requires_grad_(True)
        elif change == "norm moves":
            block.bn2.train()
        elif change == "U trains":
            block.conv2.U.requires_grad_(True)
        elif change == "hook":
            block.relu.register_forward_pre_hook(lambda m, a: None)
        else:
            block.conv2.make_residual()
    x = torch.randn(1, 3, 33, 33)
    grads = []
    for net in nets:
        trained = [p for p in net.parameters() if p.requires_grad]
        net(x)[-1].sum().backward()
        grads.append([p.grad for p in trained])
    assert len(grads[0]) == len(grads[1])
    assert all(far(a, b) < 1e-3 for a, b in zip(*grads, strict=True))


def test_taps_see_every_block() -> None:
    net = tuned()
    seen = []
    for block in net.layer3:
        block.relu.register_forward_pre_hook(lambda m, a: seen.append(a[0].shape))
    net(torch.randn(1, 3, 33, 33))
    assert len(seen) == 3 * len(net.layer3)


def test_fusing_is_idempotent_undone_by_merge_and_copied() -> None:
    net = tuned()
    strategy = SVF()
    strategy.apply(net)
    assert type(net.layer3[0]) is FusedBottleneck
    assert type(copy.deepcopy(net).layer3[0]) is FusedBottleneck
    assert type(net.layer1[0]).__name__ == "Bottleneck", "nothing of stage 1 is factored"
    strategy.merge(net)
    assert not [m for m in net.modules() if "Fused" in type(m).__name__]


def test_the_rule_of_memory() -> None:
    right, left = [1024 * 256, 256 * 256 * 9, 256 * 256], [256 * 256, 256 * 256, 1024 * 256]
    assert keep(right, left, "fast") == [True, True, True]
    assert keep(right, left, "balanced") == [True, True, False], "a 3x3 is dear, a 1x1 behind a narrow map is not"
    assert keep(right, left, "least") == [True, False, False]
    with pytest.raises(FssError, match=r"finetune\.memory=none .* plain, fast, balanced, least"):
        SVF(memory="none")
