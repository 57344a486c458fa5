"""What the cache gives is compared with the plain model on one episode: rounding passes, a difference does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.model.episodes import Stream, build, counted
from torch import Tensor, nn

from fss.errors import FssError
from fss.model import cache_check
from fss.model.cache_check import check_cache

PLENTY = 1 << 30


@pytest.mark.parametrize("shot", [1, 5])
@pytest.mark.parametrize("name", ["baseline", "pfenet", "bam"])
def test_heads_of_ours_pass_and_leave_no_trace(name: str, shot: int) -> None:
    model, batch = build(name, shot), Stream(shot).batches(3)[0]
    before = torch.get_rng_state()
    check_cache(model, batch)
    seen = counted(model)
    model.cache_features(PLENTY)
    check_cache(model, batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert seen[0] <= 2 * (1 + shot), "one episode both ways; not the batch"
    with torch.no_grad():
        ours = model.run_episode(batch).logits
        with model.uncached():
            plain = model.run_episode(batch).logits
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


def test_rounding_that_the_head_enlarges_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance below rounding the second comparison, in double precision, decides."""
    monkeypatch.setitem(cache_check.TOLERANCE, torch.float32, 1e-12)
    model, batch = build("baseline", 1), Stream(1).batches(2)[0]
    model.cache_features(PLENTY)
    check_cache(model, batch)
    assert all(p.dtype == torch.float32 for p in model.parameters())


class Remembers(nn.Module):
    """Scales by the number of images that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def test_a_backbone_whose_maps_depend_on_more_than_the_image_is_named() -> None:
    model, batch = build("pfenet", 1), Stream(1).batches(2)[0]
    stage: Any = model.backbone.stage(3)
    stage.append(Remembers())
    model.cache_features(PLENTY)
    with pytest.raises(FssError, match=r"PFENet.*feature_cache_mb=0"):
        check_cache(model, batch)


def test_scores_that_are_not_finite_are_left_to_another_check() -> None:
    model, batch = build("baseline", 1), Stream(1).batches(2)[0]
    with torch.no_grad():
        next(iter(model.head.parameters())).fill_(torch.nan)
    model.cache_features(PLENTY)
    check_cache(model, batch)
