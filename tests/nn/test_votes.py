"""Votes relative to their largest number, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fss.nn.votes import relative_votes


def decisions(*rows: list[int]) -> list[Tensor]:
    """One map of a single row per support: 1 where it says foreground."""
    signs = [2.0 * torch.tensor(row)[None, None, None] - 1 for row in rows]
    return [torch.cat([-sign, sign], dim=1) for sign in signs]


def foreground(scores: Tensor) -> list[int]:
    found: list[int] = scores.argmax(dim=1).flatten().tolist()
    return found


def test_half_of_the_largest_number_is_foreground() -> None:
    """Votes 0, 1, 2, 3, 4 of five supports: the largest number is 4, so that 2 are enough."""
    scores = relative_votes(decisions([0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [0] * 5))
    assert foreground(scores) == [0, 0, 1, 1, 1]
    assert scores[0, 1, 0].tolist() == pytest.approx([0, 0.3, 0.55, 0.8, 1])
    assert torch.allclose(scores.sum(dim=1), torch.ones(1, 1, 5))


def test_an_odd_largest_number() -> None:
    """1 of 3 and 2 of 5 are below one half, 2 of 3 and 3 of 5 above."""
    three = relative_votes(decisions([1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]))
    assert foreground(three) == [0, 1, 1, 0]
    five = decisions([1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 1])
    assert foreground(relative_votes(five)) == [0, 1, 1]


def test_every_number_of_votes_against_the_rule() -> None:
    """All splits of K votes: foreground exactly where 2 votes >= the largest number, as whole numbers say."""
    for shots in range(2, 10):
        rows = [[int(k < votes) for votes in range(shots + 1)] for k in range(shots)]
        for largest in range(shots + 1):
            kept = [row[: largest + 1] for row in rows]
            expected = [int(2 * votes >= max(1, largest)) for votes in range(largest + 1)]
            assert foreground(relative_votes(decisions(*kept))) == expected


def test_the_largest_number_is_that_of_the_image() -> None:
    """One vote of three is enough in the first image, where no pixel has more."""
    logits = [torch.cat(pair) for pair in zip(decisions([1], [0], [0]), decisions([1], [1], [1]), strict=True)]
    assert foreground(relative_votes(logits)) == [1, 1]
    assert foreground(relative_votes(decisions([0], [0]))) == [0]
