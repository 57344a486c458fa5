"""Scores at the image's own size (protocol D.2)."""

from __future__ import annotations

import pytest
import torch

from fss.metrics.geometry import at_label_size


@pytest.mark.parametrize(("height", "width"), [(3, 5), (5, 3), (4, 4)])
def test_label_sits_in_the_top_left_corner(height: int, width: int) -> None:
    label = torch.arange(height * width).reshape(height, width).to(torch.uint8) % 2
    logits, square = at_label_size(torch.zeros(2, 9, 9), label)
    side = max(height, width)
    assert logits.shape == (2, side, side)
    assert square.shape == (side, side)
    assert torch.equal(square[:height, :width], label)
    assert int((square == 255).sum()) == side * side - height * width
    assert square.dtype == torch.uint8


def test_logits_are_resized_with_aligned_corners() -> None:
    ramp = torch.arange(9.0).expand(9, 9)
    logits, _ = at_label_size(torch.stack([ramp, ramp.T]), torch.zeros(2, 5, dtype=torch.uint8))
    assert logits[0, 0].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert logits[1, :, 0].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_align_corners_is_the_heads() -> None:
    ramp = torch.arange(4.0).expand(4, 4)
    logits, _ = at_label_size(torch.stack([ramp, ramp]), torch.zeros(2, 2, dtype=torch.uint8), align_corners=False)
    assert logits[0, 0].tolist() == [0.5, 2.5]


def test_equal_size_changes_nothing() -> None:
    given = torch.randn(2, 7, 7)
    logits, square = at_label_size(given, torch.ones(7, 4))
    assert torch.equal(logits, given)
    assert int((square[:, 4:] == 255).sum()) == 21


def test_large_logits_shrink_to_a_small_label() -> None:
    logits, _ = at_label_size(torch.randn(2, 33, 33), torch.zeros(5, 3))
    assert logits.shape == (2, 5, 5)
