"""Base and novel classes at once: geometry and classes of a batch, with a head of fixed answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fss.lit.generalised import GeneralisedModule
from fss.types import Episode, HeadOutput


class Fixed(nn.Module):
    """Answers with given maps: novel in the left half, base class 2 in the right one."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Module()
        self.head.align_corners = True  # type: ignore[assignment]

    def run_episode(self, episode: Episode) -> HeadOutput:
        count = len(episode)
        final, base = torch.zeros(count, 2, 4, 4), torch.zeros(count, 3, 4, 4)
        final[:, 1, :, :2], final[:, 0, :, 2:] = 9, 9
        base[:, 2] = 9
        return HeadOutput(final, branch_logits={"base": base})


def episode(labels: list[Tensor], base: list[Tensor], classes: list[int]) -> Episode:
    count = len(labels)
    return Episode(
        query=torch.zeros(count, 3, 4, 4),
        query_label=torch.zeros(count, 4, 4),
        support_images=torch.zeros(count, 1, 3, 4, 4),
        support_labels=torch.zeros(count, 1, 4, 4),
        class_id=torch.tensor(classes),
        class_index=torch.tensor(classes),
        index=torch.arange(count),
        query_ids=["x"] * count,
        support_ids=[["y"]] * count,
        full_labels=labels,
        full_base_labels=base,
    )


def scored(rule: Any, left_out: dict[str, int] | None = None) -> dict[str, Any]:
    module = GeneralisedModule(Fixed(), ["a", "b"], ["c", "d"], rule=rule, left_out=left_out)  # type: ignore[arg-type]
    novel = torch.zeros(4, 4, dtype=torch.uint8)
    novel[:, :2] = 1
    other = torch.zeros(4, 4, dtype=torch.uint8)
    other[:, 2:] = 2
    other[0, 3] = 255
    # an image of half the height: only its own rows count
    short = torch.zeros(2, 4, dtype=torch.uint8)
    module.test_step(episode([novel, short], [other, short], [1, 0]), 0)
    module.test_scores = module.counted.compute()
    return module.result_scores()


def test_the_ensemble_wins() -> None:
    scores = scored("final")
    # d: perfect; c: absent and predicted; a: neither; b: 7 hits, 4 false pixels in the second image
    assert scores["per_class"] == pytest.approx({"a": 0.0, "b": 100 * 7 / 11, "c": 0.0, "d": 100.0})
    assert scores["novel_count"] == 1
    assert scores["miou_novel"] == pytest.approx(50.0)
    assert scores["miou_base"] == pytest.approx(100 * 7 / 22)
    assert scores["miou"] == pytest.approx((100 + 100 * 7 / 11) / 4)


def test_the_base_learner_wins() -> None:
    """It sees its class everywhere, so no novel pixel is left."""
    scores = scored("base")
    assert scores["per_class"] == pytest.approx({"a": 0.0, "b": 100 * 7 / 23, "c": 0.0, "d": 0.0})


def test_classes_left_out_of_the_means_are_named() -> None:
    scores = scored("final", {"a": 3, "d": 1})
    assert scores["left_out"] == {"a": 3, "d": 1}
    assert scores["per_class"] == scored("final")["per_class"]
    assert (scores["miou_base"], scores["miou_novel"]) == (pytest.approx(100 * 7 / 11), 0.0)
    assert scores["miou"] == pytest.approx(100 * 7 / 11 / 2)
    assert scores["fb_iou"] == scored("final")["fb_iou"]
    assert "left_out" not in scored("final")
