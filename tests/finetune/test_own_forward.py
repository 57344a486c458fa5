"""Layers that compute something else than torch's own: the tuned values go on their weight, or they are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from fss.errors import FssError
from fss.finetune import apply, load_trained_state, merge, trained_state
from fss.finetune.base import Strategy
from fss.finetune.chains.merged_copy import merged_copy
from fss.finetune.layers.factored import FactoredLayer, SVFConv2d, SVFLinear
from fss.finetune.layers.factorise import factored_layers
from fss.finetune.layers.module_stages import ModuleStages
from fss.finetune.layers.on_weight import tuned_weight
from fss.finetune.layers.tuned import TunedLayer
from fss.finetune.lora import LoRA
from fss.finetune.rotation_scale import RotationScale
from fss.finetune.scale_in import ScaleIn
from fss.finetune.scale_out import ScaleOut
from fss.finetune.svf import SVF
from fss.finetune.svf_bn import SVFBN
from fss.finetune.svf_bounded import SVFBounded
from fss.finetune.svf_foundation import SVFFoundation
from fss.finetune.svf_residual import SVFResidual
from fss.finetune.svf_rotated import SVFRotated

SWAPPING: dict[str, Callable[[], Strategy]] = {
    "svf": SVF,
    "svf_bn": SVFBN,
    "svf_bounded": SVFBounded,
    "svf_residual": SVFResidual,
    "svf_rotated": SVFRotated,
    "lora": LoRA,
    "rotation_scale": RotationScale,
    "scale_in": ScaleIn,
    "scale_out": ScaleOut,
}


class Standardised(nn.Conv2d):
    """A convolution of a weight with mean 0 and standard deviation 1, times a gain."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes, padding=1)
        self.gain = nn.Parameter(torch.full((self.out_channels, 1, 1, 1), 0.7))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        std = self.weight.std(dim=(1, 2, 3), keepdim=True) + 1e-6
        return F.conv2d(x, self.gain * (self.weight - mean) / std, self.bias, padding=1)


class Same(nn.Conv2d):
    """Pads at the bottom and on the right only."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(F.pad(x, (0, 2, 0, 2)), weight, bias, self.stride, 0, self.dilation, self.groups)


class Doubled(nn.Linear):
    """Applies twice the weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 2 * self.weight, self.bias)


class Annotated(nn.Conv2d):
    """Computes what torch does, but holds a value that something else reads."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.temperature = nn.Parameter(torch.ones(1))


class Harmless(nn.Conv2d):
    """Changes nothing of the formula."""

    def extra_repr(self) -> str:
        return "harmless"


class Plainly(nn.Module):
    """Says which class a model has left."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        if isinstance(self.layer, nn.Linear):
            x = x.mean(dim=(2, 3))
        y: Tensor = self.layer(x)
        return y


def patched() -> nn.Conv2d:
    """A plain convolution whose instance has a forward of its own."""
    layer = nn.Conv2d(6, 4, 3)
    layer.forward = MethodType(lambda self, x: 3 * F.conv2d(x, self.weight, self.bias), layer)  # type: ignore[method-assign]
    return layer


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "standardised": lambda: Standardised(6, 4, 3),
    "same": lambda: Same(6, 4, 3, stride=2, groups=2),
    "linear": lambda: Doubled(6, 5),
    "annotated": lambda: Annotated(6, 4, 3),
    "reflect": lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
    "patched": patched,
}


def make(kind: str) -> Plainly:
    torch.manual_seed(0)
    model = Plainly(LAYERS[kind]())
    nn.init.uniform_(model.norm.weight, 0.5, 1.5)
    return model.double()


def make_image() -> Tensor:
    return torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def output(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        found: Tensor = model(make_image())
    return found


def close(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) < 1e-12 * float(b.abs().max())


@pytest.mark.parametrize("name", SWAPPING)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_layer_keeps_its_forward_and_its_weight_is_tuned(kind: str, name: str) -> None:
    if (kind, name) == ("standardised", "scale_out"):
        pytest.skip("refused, see below")
    plain, model, strategy = make(kind), make(kind), SWAPPING[name]()
    layer, owner = plain.layer, model.layer
    before, sizes = output(model), {n: p.numel() for n, p in model.named_parameters()}
    report = apply(model, strategy)
    assert report.plain_total == sum(sizes.values())
    assert report.notes == []
    assert model.layer is owner
    assert isinstance(owner, type(layer))
    found = tuned_weight(owner)
    assert found is not None
    if name != "svf_rotated":
        assert close(output(model), before)
    assert any(n.startswith("layer.parametrizations.weight.0.tuned.") for n in report.trainable)
    assert not [n for n in report.trainable if n in ("layer.bias", "layer.gain", "layer.temperature")]
    # everything that trains moves the output
    model.train()
    model(make_image()).square().sum().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    still = {n for n, g in grads.items() if g is None or not bool(g.any())}
    assert still == ({"first.A", "layer.parametrizations.weight.0.tuned.A"} if name == "lora" else set())
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.sub_(0.1 * p.abs().mean().clamp(min=0.1) * torch.sign(torch.randn_like(p)))
    strategy.after_step(ModuleStages(model))
    trained = output(model)
    assert not torch.allclose(trained, before, rtol=1e-3)
    # once more, from a file of tuned values, as a copy, and as a merged copy, which leaves the original alone
    assert apply(model, strategy).trainable == report.trainable
    assert torch.equal(output(model), trained)
    twin = make(kind)
    apply(twin, SWAPPING[name]())
    load_trained_state(twin, trained_state(model))  # type: ignore[arg-type]  # any module has named_parameters
    assert torch.equal(output(twin), trained)
    double = copy.deepcopy(model)
    view = ModuleStages(double)
    for site_owner in (double, model):
        assert torch.equal(output(site_owner), trained)
    merge(double, strategy)
    assert view.norm_mode == "train"
    assert torch.equal(output(model), trained)
    assert close(output(double), trained)
    merge(model, strategy)
    assert model.layer is owner
    assert close(output(model), trained)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(output(plain), output(model))


@pytest.mark.parametrize("kind", ["standardised", "same", "linear"])
def test_the_composed_weight_is_the_formulas(kind: str) -> None:
    """Written by hand: the layer with W' = U diag(2 S) V in place of W."""
    plain, model = make(kind), make(kind)
    apply(model, SVF())
    factors = [m for m in model.modules() if isinstance(m, FactoredLayer)][1]
    groups, rows = getattr(plain.layer, "groups", 1), plain.layer.weight.shape[0]  # type: ignore[union-attr]
    with torch.no_grad():
        factors.S.mul_(torch.linspace(0.5, 2, factors.S.numel(), dtype=torch.float64))
        W: Any = plain.layer.weight
        U, S, Vt = torch.linalg.svd(W.reshape(groups, rows // groups, -1), full_matrices=False)
        W.copy_((U * (S * factors.S.view(S.shape) / S).unsqueeze(1) @ Vt).reshape(W.shape))
        plain.first.weight.copy_(model.first.weight)
    assert close(output(model), output(plain))


@pytest.mark.parametrize("name", SWAPPING)
def test_values_come_from_a_checkpoint_alone(name: str) -> None:
    """As fss.load does it: shapes on the meta device, then values."""
    model = make("same")
    apply(model, SWAPPING[name]())
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.01)
    with torch.device("meta"):
        empty = Plainly(LAYERS["same"]())
        apply(empty, SWAPPING[name]())
    assert all(t.is_meta for t in empty.state_dict().values())
    loaded = empty.double().to_empty(device="cpu")
    loaded.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(output(loaded), output(model))


def test_a_merged_copy_leaves_the_original_alone() -> None:
    model = make("standardised")
    apply(model, SVF())
    before = output(model)

    class Backbone(nn.Module):
        channels, stepwise, norm_mode = (), True, "eval"

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def stage(self, index: int) -> nn.Module:
            return self.model if index == 4 else nn.Sequential()

    merged = merged_copy(Backbone())  # type: ignore[arg-type]
    assert isinstance(merged, Backbone)
    assert type(merged.model.layer) is Standardised
    assert close(output(merged.model), before)
    assert torch.equal(output(model), before)
    assert len(list(factored_layers(ModuleStages(model), (4,)))) == 2


def test_a_harmless_subclass_is_replaced_and_comes_back() -> None:
    model = nn.Sequential(Harmless(6, 4, 3), nn.Linear(3, 3))
    apply(model, SVF())
    assert isinstance(model[0], SVFConv2d)
    assert isinstance(model[1], SVFLinear)
    merge(model, SVF())
    assert [type(m) for m in model] == [Harmless, nn.Linear]


@pytest.mark.parametrize("normed", [parametrizations.spectral_norm, parametrizations.weight_norm])
@pytest.mark.parametrize("name", SWAPPING)
def test_a_plain_layer_that_torch_parametrizes_is_replaced(name: str, normed: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(normed(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)).double().train()
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    strategy = SWAPPING[name]()
    twin = copy.deepcopy(model)
    before = output(twin)
    apply(model, strategy)
    assert isinstance(model[0], TunedLayer)
    if name != "svf_rotated":
        assert close(output(model), before)
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers() if n in buffers)
    state = model.state_dict()
    model.load_state_dict(state, strict=True)
    after = output(model)
    merge(model, strategy)
    assert type(model[0]) is nn.Conv2d
    assert close(output(model), after)


class Deaf(nn.Conv2d):
    """Applies a copy of its weight."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("kept", self.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.get_buffer("kept"), self.bias)


class Partial(nn.Conv2d):
    """Wants a mask beside the map."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x * mask)


class Noisy(nn.Conv2d):
    """Counts its calls in a buffer, and draws random numbers."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return super().forward(x) * torch.rand(())


class OwnAttention(nn.MultiheadAttention):
    """Attends in its own way."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return super().forward(*inputs, **options)


def broken() -> nn.Conv2d:
    layer = nn.Conv2d(3, 3, 1)
    nn.init.constant_(layer.weight, float("nan"))
    return layer


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "deaf": (lambda: Deaf(3, 3, 3), r"0 \(Deaf: it does not read its attribute 'weight'\)"),
    "two inputs": (lambda: Partial(3, 3, 3), r"0 \(Partial: it fails on an input of shape \(2, 3, 4, 4\): .*mask"),
    "attention": (lambda: OwnAttention(4, 2), r"0 \(OwnAttention: it is not known to compute"),
    "not finite": (broken, r"0 \(Conv2d: its weight is not finite\)"),
    "hook": (lambda: nn.utils.weight_norm(nn.Linear(3, 3)), r"0 \(Linear: its weight is computed by a hook"),
    "own and parametrized": (
        lambda: parametrizations.weight_norm(Standardised(3, 3, 3)),
        r"0 \(Standardised: .* parametrized already\)",
    ),
    "lazy": (lambda: nn.LazyLinear(3), r"0 \(LazyLinear: its weight has no shape yet; run the model once\)"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_served_is_named_and_nothing_changes(kind: str) -> None:
    build, text = REFUSED[kind]
    model = nn.Sequential(build(), Same(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    plain = [(type(m), m) for m in model.modules()]
    state = list(model.state_dict())
    random = torch.get_rng_state()
    with pytest.raises(FssError, match=text + ".*Nothing was changed"):
        apply(model, SVF())
    assert torch.equal(torch.get_rng_state(), random)
    assert [(type(m), m) for m in model.modules()] == plain
    assert list(model.state_dict()) == state
    assert all(p.requires_grad for p in model.parameters())
    model.train()
    assert model[3].training
    assert LoRA().name  # another strategy is free to try: nothing was remembered
    with pytest.raises(FssError, match="Nothing was changed"):
        apply(model, SVFBN())


def test_values_that_a_layer_normalises_away_are_refused() -> None:
    """S' W has the same rows after standardisation, so scale_out would train values without effect."""
    model = nn.Sequential(Standardised(6, 4, 3), nn.Conv2d(4, 4, 1))
    with pytest.raises(FssError, match=r"0 \(Standardised: it normalises its weight, so the new values would have no"):
        apply(model, ScaleOut())
    depthwise = nn.Sequential(Standardised(6, 6, 3))
    depthwise[0].groups, depthwise[0].weight = 6, nn.Parameter(torch.randn(6, 1, 3, 3))  # type: ignore[assignment]
    assert apply(model, ScaleIn()).trainable_total == 6 * 9 + 4


def test_what_surrounds_the_layers_trains_in_svf_foundation_but_not_their_bias() -> None:
    report = apply(make("same"), SVFFoundation())
    assert set(report.trainable) == {"first.S", "layer.parametrizations.weight.0.tuned.S", "norm.weight", "norm.bias"}


def test_a_layer_that_counts_and_draws_is_run_without_a_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Noisy(3, 4, 3))
    random = torch.get_rng_state()
    apply(model, SVF())
    assert torch.equal(torch.get_rng_state(), random)
    assert float(model[0].calls) == 0  # type: ignore[arg-type]
    assert model.training
    assert all(m.training for m in model.modules())


def test_weights_of_such_layers_cannot_be_assigned() -> None:
    model = make("same")
    apply(model, SVF())
    with pytest.raises(FssError, match=r"weight of a ParametrizedSame is computed from tuned values.*Merge"):
        model.layer.weight = torch.zeros(4, 3, 3, 3, dtype=torch.float64)


def test_hooks_of_a_replaced_layer_go_over_and_come_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    seen: list[str] = []
    handle = model[0].register_forward_hook(lambda layer, inputs, y: seen.append(type(layer).__name__))
    apply(model, SVF())
    assert seen == []  # the comparison does not call them
    model(torch.randn(1, 3, 5, 5))
    merge(model, SVF())
    model(torch.randn(1, 3, 5, 5))
    assert seen == ["SVFConv2d", "Conv2d"]
    handle.remove()
    model(torch.randn(1, 3, 5, 5))
    assert len(seen) == 2
