"""The baseline head: aggregation over shots, size and what it asks for. Its numbers: tests/golden."""

from __future__ import annotations

import pytest
import torch
from tests.methods.fakes import inputs, tiny

from fss.errors import FssError
from fss.finetune.svf import SVF
from fss.methods.baseline import Baseline
from fss.model.segmenter import FewShotSegmenter


def model(how: str = "mean", seed: int = 0) -> FewShotSegmenter:
    backbone = tiny()
    torch.manual_seed(seed)
    return FewShotSegmenter(backbone, Baseline(backbone.channels, width=8, shot_aggregation=how)).eval()  # type: ignore[arg-type]


def guidance(net: FewShotSegmenter, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prototype and prior of k equal supports."""
    query, supports, labels = inputs(2, 1)
    seen: list[torch.Tensor] = []
    handle = net.head.init_merge.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        net(query, supports.expand(-1, k, -1, -1, -1), labels.expand(-1, k, -1, -1))
    handle.remove()
    (merged,) = seen
    assert merged.shape[1] == 17  # query 8, prototype 8, prior 1: in this order
    return merged[:, 8:16], merged[:, 16:]


def test_five_equal_supports_with_mean_are_one() -> None:
    net = model("mean")
    query, supports, labels = inputs(2, 1)
    with torch.no_grad():
        one = net(query, supports, labels)
        five = net(query, supports.expand(-1, 5, -1, -1, -1), labels.expand(-1, 5, -1, -1))
    assert torch.allclose(one, five, atol=1e-5)
    for a, b in zip(guidance(net, 1), guidance(net, 5), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_five_equal_supports_with_sum_are_five_times_as_large() -> None:
    net = model("sum")
    prototype, prior = guidance(net, 1)
    prototypes, priors = guidance(net, 5)
    assert float(prior.max()) == pytest.approx(1.0, abs=1e-3)
    assert float(priors.max()) == pytest.approx(5.0, abs=5e-3)
    assert torch.allclose(prototypes, 5 * prototype, atol=1e-5)
    assert torch.allclose(priors, 5 * prior, atol=1e-5)
    query, supports, labels = inputs(2, 1)
    with torch.no_grad():
        one = net(query, supports, labels)
        five = net(query, supports.expand(-1, 5, -1, -1, -1), labels.expand(-1, 5, -1, -1))
    assert not torch.allclose(one, five, atol=1e-3)


def test_one_shot_is_the_same_either_way() -> None:
    given = inputs(2, 1)
    with torch.no_grad():
        assert torch.equal(model("mean")(*given), model("sum")(*given))


def test_order_of_supports_does_not_matter() -> None:
    net = model()
    query, supports, labels = inputs(2, 3)
    labels[:, 1, :8] = 1
    with torch.no_grad():
        assert torch.allclose(net(query, supports, labels), net(query, supports.flip(1), labels.flip(1)), atol=1e-5)


def test_the_supports_matter() -> None:
    net = model()
    query, supports, labels = inputs(2, 1)
    with torch.no_grad():
        base = net(query, supports, labels)
        assert not torch.allclose(base, net(query, supports.flip(-1), labels), atol=1e-5)
        moved = labels.roll(7, dims=-1)
        assert not torch.allclose(base, net(query, supports, moved), atol=1e-5)


def test_ignored_support_pixels_are_background() -> None:
    net = model()
    query, supports, labels = inputs(2, 1)
    assert int((labels == 255).sum()) > 0
    with torch.no_grad():
        assert torch.equal(net(query, supports, labels), net(query, supports, labels.where(labels != 255, 0)))


def test_empty_support_mask_is_finite_with_gradients() -> None:
    net = model()
    SVF().apply(net.backbone)
    net.train()
    query, supports, labels = inputs(2, 1)
    net(query, supports, torch.zeros_like(labels)).square().mean().backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_size_in_the_paper() -> None:
    """methods.md 7.4: 4,917,250 trainable values with ResNet-50 and width 256."""
    with torch.device("meta"):
        head = Baseline((128, 256, 512, 1024, 2048))
    assert sum(p.numel() for p in head.parameters()) == 4_917_250
    assert head.down_query[0].weight.numel() == 393_216
    assert head.spec.stages == (2, 3, 4)
    assert head.spec.support_view == "masked_before_stage4"


def test_svf_reaches_every_singular_value() -> None:
    """Stage 4 is reached through the prior alone, and still every layer's S has a gradient."""
    net = model()
    report = SVF().apply(net.backbone)
    net.train()
    net.head.eval()  # no dropout
    net(*inputs(2, 1)).square().mean().backward()
    for name in report.trainable:
        gradient = net.backbone.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient.abs().max()) > 0, name


def test_dropout_only_in_training() -> None:
    net = model()
    given = inputs(2, 1)
    with torch.no_grad():
        assert torch.equal(net(*given), net(*given))
        net.train()
        assert not torch.equal(net(*given), net(*given))


def test_unknown_aggregation() -> None:
    with pytest.raises(FssError, match="shot_aggregation='max': choose mean, or sum"):
        model("max")
