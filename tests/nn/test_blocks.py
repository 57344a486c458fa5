"""ASPP, aggregation over shots, middle features and resizing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fss.nn.aspp import ASPP
from fss.nn.enrichment import FeatureEnrichment
from fss.nn.middle_features import middle_features
from fss.nn.resize import up
from fss.nn.shot_mean import aggregate


def test_aspp_branches_in_released_order() -> None:
    torch.manual_seed(0)
    aspp = ASPP(4)
    x = torch.randn(2, 4, 7, 9)
    out = aspp(x)
    assert out.shape == (2, 20, 7, 9)
    convs = [branch[0] for branch in aspp.branches]
    pooled = F.conv2d(x.mean((2, 3), keepdim=True), convs[0].weight, convs[0].bias).relu()
    assert torch.allclose(out[:, :4], pooled.expand(-1, -1, 7, 9))
    assert torch.allclose(out[:, 4:8], F.conv2d(x, convs[1].weight, convs[1].bias).relu())
    for i, rate in enumerate((6, 12, 18)):
        conv = convs[2 + i]
        expected = F.conv2d(x, conv.weight, conv.bias, padding=rate, dilation=rate).relu()
        assert torch.allclose(out[:, 8 + 4 * i : 12 + 4 * i], expected, atol=1e-6)
    assert float(out.detach().min()) == 0.0


def test_aspp_initialisation_is_he_normal() -> None:
    torch.manual_seed(0)
    for branch, fan_in in zip(ASPP(64).branches, (64, 64, 576, 576, 576), strict=True):
        assert float(branch[0].weight.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
        assert float(branch[0].bias.abs().max()) <= fan_in**-0.5


def test_aspp_has_no_normalisation_and_counts() -> None:
    aspp = ASPP(256)
    assert {type(m) for b in aspp.branches for m in b} == {nn.Conv2d, nn.ReLU}
    assert sum(p.numel() for p in aspp.parameters()) == 2 * 256**2 + 3 * 9 * 256**2 + 5 * 256


def test_aspp_drops_channels_of_a_branch_in_training() -> None:
    torch.manual_seed(0)
    aspp, x = ASPP(64, dropout=0.5), torch.randn(2, 64, 5, 5)
    kept = aspp.eval()(x)
    dropped = aspp.train()(x).detach()
    whole = (dropped == 0).flatten(2).all(dim=2)
    assert 0.4 < float(whole.float().mean()) < 0.6
    assert torch.allclose(dropped[~whole], 2 * kept.detach()[~whole])


@pytest.mark.parametrize("shape", [(1, 1), (9, 9)], ids=["one", "of each position"])
def test_enrichment_takes_one_prototype_or_one_of_each_position(shape: tuple[int, int]) -> None:
    """A map of equal prototypes is the same as one; a map of different ones is pooled as the query is."""
    torch.manual_seed(0)
    enrich = FeatureEnrichment(4, (6, 3)).eval()
    query, prior, prototype = torch.randn(2, 4, 9, 9), torch.rand(2, 1, 9, 9), torch.randn(2, 4, 1, 1)
    merged, scores = enrich(query, prototype.expand(2, 4, *shape), prior)
    caught: list[torch.Tensor] = []
    for merge in enrich.init_merge:
        merge.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    again, other = enrich(query, prototype, prior)
    assert torch.allclose(merged, again, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(scores, other, strict=True))
    enrich(query, query, prior)
    for given in caught[2:]:
        assert torch.equal(given[:, :4], given[:, 4:8])


def test_aggregate() -> None:
    per_shot = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1, 1).expand(2, 3, 4, 5, 6)
    assert torch.equal(aggregate(per_shot, "mean"), torch.full((2, 4, 5, 6), 3.0))
    assert torch.equal(aggregate(per_shot, "sum"), torch.full((2, 4, 5, 6), 9.0))


def test_middle_features_are_stage_3_then_stage_2() -> None:
    three, two = torch.full((1, 2, 3, 3), 3.0), torch.arange(25.0).reshape(1, 1, 5, 5)
    out = middle_features({2: two, 3: three, 4: torch.zeros(1)})
    assert out.shape == (1, 3, 3, 3)
    assert torch.equal(out[:, :2], three)
    assert torch.equal(out[:, 2:], two[..., ::2, ::2])  # aligned corners: every second value


def test_up_is_bilinear_with_aligned_corners() -> None:
    x = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert up(x, (3, 3))[0, 0].tolist() == [[0.0, 0.5, 1.0], [1.0, 1.5, 2.0], [2.0, 2.5, 3.0]]
    assert up(x, 3).shape == (1, 1, 3, 3)
    assert up(x, (1, 4))[0, 0].tolist() == [[0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]]
    assert up(x, 4, align_corners=False)[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]


def test_up_to_the_same_size_is_the_input() -> None:
    x = torch.randn(1, 2, 4, 5)
    assert up(x, (4, 5)) is x
