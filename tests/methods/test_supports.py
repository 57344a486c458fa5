"""What order and repetition of the supports change, as pages and docstrings of the heads state.

A head that is not listed here states and tests that in files of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from tests.contracts.test_heads import NAMES, batch, model
from torch import Tensor

from fss.errors import FssError
from fss.model.segmenter import FewShotSegmenter
from fss.types import Episode

Effect = Literal["none", "some", "refused"]
REPEATED: dict[str, Effect] = {
    "asgnet": "some",  # similarities are summed over all prototypes
    "bam": "refused",  # its weights of the supports belong to one number of them
    "baseline": "none",
    "cyctr": "none",  # while all positions are keys; tests/methods/test_cyctr.py has the draw
    "dcama": "none",
    "hdmnet": "refused",
    "hsnet": "none",
    "pfenet": "none",
}
"""What repeating all supports changes; their order changes nothing in any head, as configured by default."""
VOTES = ("hsnet",)
"""Heads whose mask counts alone: scores are shares of votes, which their number moves within the same decision."""


def chosen(shots: list[int]) -> Episode:
    """Return episodes whose two supports differ in image and mask, in double precision."""
    given = batch()
    given.support_labels[:, 1] = 0
    given.support_labels[:, 1, 5:30, 14:] = 1
    return replace(
        given,
        query=given.query.double(),
        support_images=given.support_images[:, shots].double(),
        support_labels=given.support_labels[:, shots],
    )


@pytest.fixture
def net(request: pytest.FixtureRequest) -> FewShotSegmenter:
    return model(request.param, "resnet18").double().eval()


def answer(net: FewShotSegmenter, shots: list[int]) -> Tensor:
    with torch.no_grad():
        logits = net.run_episode(chosen(shots)).logits
    return logits.argmax(dim=1) if net.head.name in VOTES else logits


def equal(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one.double(), other.double(), rtol=0, atol=1e-10 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("net", REPEATED, indirect=True)
def test_their_order_changes_nothing(net: FewShotSegmenter) -> None:
    assert equal(answer(net, [1, 0]), answer(net, [0, 1]))


@pytest.mark.parametrize("net", REPEATED, indirect=True)
def test_repeating_all_of_them(net: FewShotSegmenter) -> None:
    expected = REPEATED[net.head.name]
    if expected == "refused":
        with pytest.raises(FssError, match="belong to one number of supports"):
            answer(net, [0, 1, 0, 1])
        return
    once, twice = answer(net, [0, 1]), answer(net, [0, 1, 0, 1])
    assert equal(twice, once) is (expected == "none")
    assert float((twice - once).abs().max()) > 1e-4 or expected == "none", "more than rounding"


@pytest.mark.parametrize("net", NAMES, indirect=True)
def test_which_supports_there_are_matters(net: FewShotSegmenter) -> None:
    assert not equal(answer(net, [0, 0]), answer(net, [0, 1]))
