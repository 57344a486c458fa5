"""One contract over every fine-tune strategy in conf/finetune."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.contracts.declared import CHANGES_THE_NETWORK, CONVOLUTIONAL, KINDS, VARIANTS, make
from tests.contracts.strategies import NAMES
from tests.contracts.strategies import tiny as tiny_of
from torch import Tensor, nn

from fss.backbones.staged import StagedModule
from fss.checkpoints.tuned import apply_tuned, save_tuned
from fss.errors import FssError
from fss.finetune.base import Strategy, load_trained_state, trained_state
from fss.finetune.layers.nothing_to_train import NothingToTrainError
from fss.finetune.layers.tuned import TunedLayer

TOLERANCE = 1e-5
_KIND: list[str] = ["resnet18"]
# Every strategy meets every kind of backbone that it serves; its further forms meet the first one.
PAIRS = [(k, v) for v, (name, _) in sorted(VARIANTS.items()) for k in KINDS[name] if k == KINDS[name][0] or v in NAMES]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    kind, variant = request.param
    return kind, variant


@pytest.fixture
def variant(pair: tuple[str, str]) -> Iterator[str]:
    _KIND.append(pair[0])
    yield pair[1]
    _KIND.pop()


@pytest.fixture
def kind(pair: tuple[str, str]) -> str:
    return pair[0]


def tiny(seed: int = 0) -> StagedModule:
    return tiny_of(seed, _KIND[-1])


def injected(variant: str, backbone: StagedModule) -> Strategy:
    strategy = make(variant)
    strategy.apply(backbone)
    return strategy


def make_image(seed: int = 1) -> Tensor:
    return torch.randn(2, 3, 33, 33, generator=torch.Generator().manual_seed(seed))


def outputs(backbone: nn.Module) -> list[Tensor]:
    backbone.eval()
    with torch.no_grad():
        found: list[Tensor] = backbone(make_image())
    return found


def close(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) <= TOLERANCE * max(1.0, float(a.abs().max()))


def step(backbone: StagedModule, strategy: Strategy) -> None:
    """One SGD step with weight decay on everything that requires a gradient, in training mode."""
    backbone.train()
    trainable = [p for p in backbone.parameters() if p.requires_grad]
    if not trainable:
        with torch.no_grad():
            backbone(make_image(2))
        return
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    sum(stage.square().mean() for stage in backbone(make_image(2))).backward()
    optimizer.step()
    strategy.after_step(backbone)


def test_the_folder_is_not_empty() -> None:
    assert {"freeze", "full", "svf"} <= set(NAMES)
    assert len(NAMES) >= 15


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n in NAMES for k in CONVOLUTIONAL if k not in KINDS[n]])
def test_nothing_to_train_is_refused_and_changes_nothing(name: str, kind: str) -> None:
    backbone = tiny_of(kind=kind)
    with pytest.raises(NothingToTrainError, match=rf"finetune={name} finds no .* which has \d+ BatchNorm2d"):
        make(name).apply(backbone)
    assert all(p.requires_grad for p in backbone.parameters())
    assert not [m for m in backbone.modules() if isinstance(m, TunedLayer)]


def test_output_is_unchanged_on_injection(variant: str) -> None:
    backbone = tiny()
    before = outputs(backbone)
    injected(variant, backbone)
    after = outputs(backbone)
    assert all(float(m.abs().max()) > 0 for m in before)
    unchanged = [close(a, b) for a, b in zip(before, after, strict=True)]
    if VARIANTS[variant][0] in CHANGES_THE_NETWORK:
        assert unchanged == [True, True, False, False, False]  # stages 2 to 4
    else:
        assert all(unchanged)


def test_only_declared_parameters_move_in_a_step(variant: str) -> None:
    backbone = tiny()
    strategy = make(variant)
    report = strategy.apply(backbone)
    before = {n: p.detach().clone() for n, p in backbone.named_parameters()}
    step(backbone, strategy)
    moved = {n for n, p in backbone.named_parameters() if not torch.equal(p, before[n])}
    assert moved == report.trainable.keys()
    assert report.trainable_total == sum(before[n].numel() for n in moved)
    assert report.total == sum(v.numel() for v in before.values())


def test_weight_decay_reaches_nothing_frozen(variant: str) -> None:
    """Frozen values get no gradient at all: a zero gradient would let weight decay pull at them."""
    backbone = tiny()
    strategy = make(variant)
    report = strategy.apply(backbone)
    step(backbone, strategy)
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) == (name in report.trainable), name


def test_plain_total_is_the_size_before(variant: str) -> None:
    backbone = tiny()
    size = sum(p.numel() for p in backbone.parameters())
    report = make(variant).apply(backbone)
    assert report.plain_total == size
    assert report.strategy == VARIANTS[variant][0]


def test_merge_gives_plain_convolutions_with_equal_output(variant: str) -> None:
    reference = tiny()
    backbone = copy.deepcopy(reference)
    strategy = injected(variant, backbone)
    step(backbone, strategy)
    trained = outputs(backbone)
    if not strategy.mergeable:
        with pytest.raises(FssError, match=f"finetune={strategy.name}.*cannot be merged.*fss.load"):
            strategy.merge(backbone)
        assert all(torch.equal(a, b) for a, b in zip(trained, outputs(backbone), strict=True))
        return
    strategy.merge(backbone)
    assert not [m for m in backbone.modules() if isinstance(m, TunedLayer)]
    merged = backbone.state_dict()
    shapes = {k: v.shape for k, v in reference.state_dict().items()}
    assert {k: v.shape for k, v in merged.items()} == shapes
    for new, old in zip(backbone.modules(), reference.modules(), strict=True):
        assert type(new) is type(old)
        if isinstance(new, nn.Conv2d):
            for fact in ("stride", "padding", "dilation", "groups", "kernel_size"):
                assert getattr(new, fact) == getattr(old, fact)
    for a, b in zip(trained, outputs(backbone), strict=True):
        assert close(a, b)
    fresh = tiny(5)
    fresh.load_state_dict(merged)
    assert torch.equal(outputs(fresh)[4], outputs(backbone)[4])


def test_state_dict_round_trip(variant: str, tmp_path: Path) -> None:
    backbone = tiny()
    step(backbone, injected(variant, backbone))
    torch.save(backbone.state_dict(), tmp_path / "all.pth")
    other = tiny(7)
    injected(variant, other)
    other.load_state_dict(torch.load(tmp_path / "all.pth", weights_only=True), strict=True)
    for a, b in zip(outputs(backbone), outputs(other), strict=True):
        assert torch.equal(a, b)


def test_tuned_values_round_trip(variant: str, tmp_path: Path) -> None:
    backbone = tiny()
    strategy = injected(variant, backbone)
    initial = outputs(backbone)[4]
    step(backbone, strategy)
    state = trained_state(backbone)
    save_tuned(tmp_path / "tuned.pt", backbone, {"finetune": variant})
    other = tiny()
    injected(variant, other)
    assert apply_tuned(tmp_path / "tuned.pt", other) == {"finetune": variant}
    assert trained_state(other).keys() == state.keys()
    assert all(torch.equal(v, state[n]) for n, v in trained_state(other).items())
    assert torch.equal(outputs(other)[4], outputs(backbone)[4])
    assert torch.equal(outputs(other)[4], initial) == (not state)
    assert [p.name for p in tmp_path.iterdir()] == ["tuned.pt"]


def test_tuned_values_of_another_strategy_change_nothing(tmp_path: Path) -> None:
    backbone = tiny()
    injected("svf", backbone)
    before = trained_state(backbone)
    other = tiny()
    injected("full", other)
    with pytest.raises(FssError, match="do not belong to this backbone and strategy"):
        load_trained_state(backbone, trained_state(other))
    cut = dict(before)
    name = next(iter(cut))
    cut[name] = cut[name][:-1]
    with pytest.raises(FssError, match=f"{name}.*instead of"):
        load_trained_state(backbone, {k: v + 1 for k, v in cut.items()})
    assert all(torch.equal(v, before[n]) for n, v in trained_state(backbone).items())
    (tmp_path / "bad.pt").write_bytes(b"not a file of tensors")
    with pytest.raises(FssError, match=r"bad\.pt is no file of tuned values"):
        apply_tuned(tmp_path / "bad.pt", backbone)


def test_batch_norm_stays_in_evaluation(variant: str, kind: str) -> None:
    backbone = tiny()
    injected(variant, backbone)
    norms = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(norms) == {"resnet18": 20, "vgg16": 13, "layer_norms": 0}[kind]
    before = {n: (m.running_mean.clone(), m.running_var.clone()) for n, m in norms.items()}
    backbone.eval().train()
    assert backbone.training
    assert not [n for n, m in norms.items() if m.training]
    for _ in range(3):
        backbone(10 + make_image())
    for name, module in norms.items():
        assert torch.equal(module.running_mean, before[name][0])
        assert torch.equal(module.running_var, before[name][1])
        assert int(module.num_batches_tracked) == 0


def test_a_plain_backbone_does_drift() -> None:
    """The check above can fail: without a strategy the statistics move."""
    backbone = tiny().train()
    before = backbone.layer0[1].running_mean.clone()
    backbone(10 + make_image())
    assert not torch.equal(backbone.layer0[1].running_mean, before)


def test_applying_twice_is_applying_once(variant: str) -> None:
    backbone = tiny()
    strategy = make(variant)
    first = strategy.apply(backbone)
    step(backbone, strategy)
    modules = dict(backbone.named_modules())
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    second = strategy.apply(backbone)
    assert (second.trainable, second.total, second.plain_total) == (first.trainable, first.total, first.plain_total)
    assert dict(backbone.named_modules()) == modules
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())


def test_a_copy_is_independent_and_equal(variant: str) -> None:
    backbone = tiny()
    strategy = injected(variant, backbone)
    twin = copy.deepcopy(backbone)
    before = outputs(twin)
    step(backbone, strategy)
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(twin), strict=True))
    twin.load_state_dict(backbone.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(outputs(backbone), outputs(twin), strict=True))
    step(twin, strategy)
    assert twin.norm_mode == backbone.norm_mode


def test_values_come_from_a_checkpoint_alone(variant: str) -> None:
    """As fss.load does it: shapes on the meta device, then values; nothing may hide outside of the state dict."""
    backbone = tiny()
    step(backbone, injected(variant, backbone))
    with torch.device("meta"):
        empty = tiny()
    injected(variant, empty)
    assert all(t.is_meta for t in empty.state_dict().values())
    hidden = {n for n, _ in empty.named_buffers()} - empty.state_dict().keys()
    assert not hidden
    loaded = empty.to_empty(device="cpu")
    loaded.load_state_dict(backbone.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(outputs(backbone), outputs(loaded), strict=True))


def test_other_backbones_stay_untouched(variant: str) -> None:
    holder = nn.ModuleDict({"tuned": tiny(), "bystander": tiny()})
    before = {k: v.clone() for k, v in holder["bystander"].state_dict().items()}
    injected(variant, holder["tuned"])  # type: ignore[arg-type]
    assert all(p.requires_grad for p in holder["bystander"].parameters())
    assert holder["bystander"].state_dict().keys() == before.keys()
    assert holder["bystander"].norm_mode == "train"
