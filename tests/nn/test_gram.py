"""Gram matrices and learned weights of supports, on inputs that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from fss.nn.gram import gram, style_distance
from fss.nn.shot_weights import ShotWeights


def test_gram_holds_cosines_between_channels() -> None:
    maps = torch.tensor([[[[1.0, 0.0]], [[2.0, 0.0]], [[0.0, 3.0]]]])  # two parallel channels, one at right angles
    expected = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    assert torch.allclose(gram(maps), expected, atol=1e-6)


def test_distance_of_equal_maps_is_zero_and_has_finite_gradients() -> None:
    query = torch.rand(2, 5, 3, 4, requires_grad=True)
    supports = query.detach()[:, None].expand(-1, 2, -1, -1, -1)
    psi = style_distance(query, supports)
    assert torch.equal(psi, torch.zeros(2, 2))
    psi.sum().backward()
    assert query.grad is not None
    assert bool(query.grad.isfinite().all())


def test_distance_by_hand() -> None:
    query = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # Gram matrix: identity
    support = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]])  # all ones
    psi = style_distance(query, support[:, None])
    assert float(psi) == pytest.approx(2**0.5 / 2, abs=1e-6)  # two entries differ by one, over C = 2


def test_brightness_is_no_style() -> None:
    query = torch.rand(1, 4, 3, 3)
    assert float(style_distance(query, 7 * query[:, None])) == pytest.approx(0, abs=1e-5)


def test_dead_channels_stay_finite() -> None:
    psi = style_distance(torch.zeros(1, 4, 3, 3), torch.rand(1, 2, 4, 3, 3))
    assert bool(psi.isfinite().all())


def test_weights_follow_their_supports() -> None:
    torch.manual_seed(0)
    net, psi = ShotWeights(4), torch.rand(3, 4)
    order = torch.tensor([2, 0, 3, 1])
    weights = net(psi)
    assert torch.allclose(weights.sum(dim=1), torch.ones(3))
    assert torch.allclose(net(psi[:, order]), weights[:, order])
    assert not torch.allclose(weights, torch.full((3, 4), 0.25), atol=1e-3)


def test_weights_may_stay_in_ascending_order_of_distance() -> None:
    torch.manual_seed(0)
    net, psi = ShotWeights(4), torch.rand(3, 4)
    own = net(psi)
    net.restore = False
    assert torch.allclose(net(psi), own.gather(1, psi.argsort(dim=1)))
    assert torch.allclose(net(psi), net(psi.flip(1))), "the order of the supports does not change it"
    assert not torch.allclose(net(psi), own, atol=1e-3)


def test_single_layer_starts_even() -> None:
    assert torch.allclose(ShotWeights(5, hidden=0)(torch.rand(2, 5)), torch.full((2, 5), 0.2))


def test_names_are_the_releases() -> None:
    assert list(ShotWeights(5).state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert sum(p.numel() for p in ShotWeights(5).parameters()) == 27
