"""Generalised testing against numbers worked out by hand (protocol D.5)."""

from __future__ import annotations

import pytest
import torch

from fss.errors import FssError
from fss.metrics.generalised import GeneralisedIoU, joined, merged

# two base classes (1, 2); the novel one is 3
NOVEL_LOGIT = torch.tensor([0.0, 4.0])  # softmax of the foreground: 0.982


def test_labels_are_joined() -> None:
    label = torch.tensor([[1, 0, 0, 255, 0]], dtype=torch.uint8)
    base = torch.tensor([[0, 2, 1, 255, 0]], dtype=torch.uint8)
    assert joined(label, base, 2).tolist() == [[3, 2, 1, 255, 0]]


def test_who_wins() -> None:
    """Four pixels: both see something, only the ensemble, only the base learner, neither."""
    base = torch.tensor([[0.0, 5.0, 0.0, 5.0], [5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]])[:, None]
    final = torch.stack([NOVEL_LOGIT, NOVEL_LOGIT, -NOVEL_LOGIT, -NOVEL_LOGIT], dim=1)[:, None]
    assert merged(final, base).tolist() == [[3, 3, 2, 0]]
    assert merged(final, base, rule="base").tolist() == [[1, 3, 2, 0]]


def test_the_threshold_is_a_probability_of_the_merged_scores() -> None:
    """Scores 0 and 1, the most that an untrained ensemble can give, are e / (1 + e) = 0.731."""
    base, final = torch.zeros(3, 1, 1), torch.tensor([0.0, 1.0])[:, None, None]
    assert merged(final, base, tau=0.73).item() == 3
    assert merged(final, base, tau=0.732).item() == 0
    assert merged(final, base).item() == 0


def test_scores_by_hand() -> None:
    """Three episodes of two novel classes, 0 and 1."""
    metric = GeneralisedIoU(base=2, novel=2)
    # novel class 0: hit 1 of 2, one false positive on base 1, one ignored pixel
    metric.update(torch.tensor([3, 0, 3, 1, 2, 3]), torch.tensor([3, 3, 1, 1, 0, 255]), 0)
    # novel class 0, absent from the label: one false positive on background
    metric.update(torch.tensor([3, 0, 0, 0]), torch.tensor([0, 0, 0, 0]), 0)
    # novel class 1: perfect
    metric.update(torch.tensor([3, 3, 2, 0]), torch.tensor([3, 3, 2, 0]), 1)
    scores = metric.compute()
    assert (scores.episodes, scores.novel_count) == (3, 2)
    assert scores.novel == pytest.approx((1 / 4, 1.0))  # 1 hit; 2 true, 3 predicted
    assert scores.base == pytest.approx((1 / 2, 1 / 2))
    assert scores.base_miou == pytest.approx(1 / 2)
    assert scores.novel_miou == pytest.approx(5 / 8)
    assert scores.miou == pytest.approx((1 / 2 + 1 / 2 + 1 / 4 + 1) / 4)
    # all classes together: hits 1 + 1 (base) and 3 (novel); unions 2 + 2 and 4 + 2
    assert scores.foreground_iou == pytest.approx(5 / 10)
    # background: hits 3 + 1; true 1 + 4 + 1, predicted 1 + 3 + 1: union 7
    assert scores.fb_iou == pytest.approx((4 / 7 + 1 / 2) / 2)


def test_classes_without_episodes_count_as_zero() -> None:
    metric = GeneralisedIoU(base=1, novel=2)
    metric.update(torch.tensor([2, 0]), torch.tensor([2, 0]), 1)
    scores = metric.compute()
    assert (scores.base, scores.novel) == ((0.0,), (0.0, pytest.approx(1.0)))
    assert scores.miou == pytest.approx(1 / 3)


def test_classes_left_out_of_the_means() -> None:
    metric = GeneralisedIoU(2, 2, base_left_out=(1,), novel_left_out=(0,))
    metric.update(torch.tensor([3, 0, 3, 1, 2, 3]), torch.tensor([3, 3, 1, 1, 0, 255]), 0)
    metric.update(torch.tensor([3, 3, 2, 1]), torch.tensor([3, 3, 2, 1]), 1)
    scores = metric.compute()
    assert (scores.base_miou, scores.novel_miou) == (scores.base[0], scores.novel[1])
    assert scores.miou == pytest.approx((scores.base[0] + scores.novel[1]) / 2)
    assert scores.base[0] != scores.base[1]
    with pytest.raises(FssError, match="All 2 classes are left out"):
        GeneralisedIoU(2, 2, novel_left_out=(0, 1))
