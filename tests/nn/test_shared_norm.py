"""Batch norm becomes a shared one and plain again; what it computes on several processes: tests/runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fss.errors import FssError
from fss.nn.shared_norm import SharedBatchNorm, share_batch_norm, unshare_batch_norm


def test_layers_that_train_are_exchanged_and_given_back() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(2), nn.BatchNorm2d(4).eval(), nn.Conv2d(1, 1, 1))
    kinds, state = [type(m) for m in net], {k: v.clone() for k, v in net.state_dict().items()}
    share_batch_norm(net)
    share_batch_norm(net)
    assert [type(m) for m in net] == [SharedBatchNorm, SharedBatchNorm, *kinds[2:]], "a frozen one has nothing to share"
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    unshare_batch_norm(net)
    assert [type(m) for m in net] == kinds
    assert "process_group" not in vars(net[0])


def test_with_one_process_it_is_the_plain_layer() -> None:
    plain, shared = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    share_batch_norm(shared)
    x = torch.randn(4, 3, 5, 5)
    for mode in (True, False):
        assert torch.equal(shared.train(mode)(x), plain.train(mode)(x))
    assert torch.equal(shared.running_mean, plain.running_mean)  # type: ignore[arg-type]


class Other(nn.BatchNorm2d):
    pass


def test_a_batch_norm_that_computes_something_else_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), Other(3))
    with pytest.raises(FssError, match=r"1 is a Other.*trainer\.devices=1"):
        share_batch_norm(net)
    share_batch_norm(net.eval())
