"""Random masks of an episode do not depend on how the batch is split among processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fss.nn.distributed import episode_generators
from fss.nn.dropout import SharedDropout, SharedDropout2d


@pytest.mark.parametrize("layer", [SharedDropout, SharedDropout2d])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_drop_what_one_does(
    layer: type[nn.Module], world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped(x: Tensor, rank: int, world: int) -> Tensor:
        for module in ("distributed", "dropout"):
            monkeypatch.setattr(f"fss.nn.{module}.rank_and_world", lambda: (rank, world))
        torch.manual_seed(0)
        return layer(0.5).train()(x)

    x = torch.rand(6, 20, 3, 3) + 1
    alone = dropped(x, 0, 1)
    for rank in range(world):
        assert torch.equal(dropped(x[rank::world], rank, world), alone[rank::world])
    assert 0.2 < float((alone == 0).float().mean()) < 0.8
    kept = alone[alone != 0]
    assert torch.allclose(kept, (2 * x)[alone != 0])


def test_single_values_are_dropped_at_the_given_rate() -> None:
    torch.manual_seed(0)
    layer, x = SharedDropout(0.1), torch.ones(2, 50_000)
    once, again = layer(x), layer(x)
    for row in (*once, *again):
        assert float((row == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert not torch.equal(once, again)
    assert not torch.equal(once[0], once[1])
    assert torch.equal(SharedDropout(1.0)(x), torch.zeros_like(x))
    assert layer.eval()(x) is x


def test_generators_follow_the_global_seed() -> None:
    def first(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return [float(torch.rand((), generator=g)) for g in episode_generators(3)]

    assert first(1) == first(1)
    assert len({*first(1), *first(2)}) == 6
