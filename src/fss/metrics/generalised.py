"""Metrics of generalised testing: base classes and one novel class predicted together (protocol D.5)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from fss.metrics.iou import EPS, kept_classes
from fss.types import IGNORE

Merge = Literal["final", "base"]
MERGES: tuple[Merge, ...] = ("final", "base")
"""Which prediction wins where both find a class: the ensemble's (``final``) or the base learner's (``base``)."""


def merged(final: Tensor, base: Tensor, tau: float = 0.9, rule: Merge = "final") -> Tensor:
    """Merge the predictions of the ensemble and of the base learner into one map (BAM's test_GFSS.py).

    Args:
        final: the ensemble's logits of background and foreground, (2, H, W).
        base: the base learner's logits of background and base classes, (N + 1, H, W).
        tau: threshold on the foreground probability of the ensemble.
        rule: ``final``: the novel class where the ensemble predicts foreground, else the base learner's class;
            ``base``: the base learner's class where that is not background, else the novel class where the ensemble
            predicts foreground.

    Returns:
        0 background, 1 to N base classes, N + 1 the novel class, (H, W), int64.
    """
    base_ids = base.argmax(dim=0)
    novel = torch.softmax(final, dim=0)[1] > tau
    if rule == "base":
        novel = novel & (base_ids == 0)
    return base_ids.masked_fill(novel, base.shape[0])


def joined(label: Tensor, base_label: Tensor, classes: int) -> Tensor:
    """Merge the two labels of an episode into one map.

    Args:
        label: 1 on the episode's class, (H, W).
        base_label: position of the base class + 1, 0 elsewhere, 255 ignored, (H, W).
        classes: number of base classes N.

    Returns:
        0 background and other novel classes, 1 to N base classes, N + 1 the episode's class, 255 ignored, (H, W),
        int64.
    """
    return base_label.long().masked_fill(label == 1, classes + 1)


@dataclass
class GeneralisedScores:
    """Scores in [0, 1].

    Attributes:
        base: IoU of every base class over all episodes.
        novel: IoU of every novel class over its own episodes; 0 without episodes.
        fb_iou: mean of the background's IoU and ``foreground_iou``.
        foreground_iou: IoU from the counts of all classes but the background together.
        episodes: number of episodes.
        novel_count: number of episodes whose label contains the novel class.
        base_kept: positions of the base classes that count in means.
        novel_kept: positions of the novel ones.
    """

    base: tuple[float, ...]
    novel: tuple[float, ...]
    fb_iou: float
    foreground_iou: float
    episodes: int
    novel_count: int
    base_kept: tuple[int, ...]
    novel_kept: tuple[int, ...]

    @property
    def base_miou(self) -> float:
        """Mean over the base classes that count."""
        return _mean([self.base[c] for c in self.base_kept])

    @property
    def novel_miou(self) -> float:
        """Mean over the novel classes that count."""
        return _mean([self.novel[c] for c in self.novel_kept])

    @property
    def miou(self) -> float:
        """Mean over base and novel classes that count, whether they occur in the labels or not."""
        return _mean([*(self.base[c] for c in self.base_kept), *(self.novel[c] for c in self.novel_kept)])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


class GeneralisedIoU(Metric):
    """Pixel counts by the episodes' novel class, summed over all processes.

    Attributes:
        classes: number of base classes N.
    """

    full_state_update = False
    counts: Tensor
    episodes: Tensor

    def __init__(
        self, base: int, novel: int, base_left_out: Collection[int] = (), novel_left_out: Collection[int] = ()
    ) -> None:
        """Declare the state.

        Args:
            base: number of base classes.
            novel: number of novel classes.
            base_left_out: positions of base classes that means over classes leave out.
            novel_left_out: likewise of novel classes.

        Raises:
            FssError: if no base or no novel class is left.
        """
        super().__init__()
        self.classes = base
        self.base_kept, self.novel_kept = kept_classes(base, base_left_out), kept_classes(novel, novel_left_out)
        # (class of the episode, predicted or true id as in `merged`, intersection and union)
        self.add_state("counts", torch.zeros(novel, base + 2, 2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("episodes", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, class_index: int | Tensor) -> None:
        """Add one episode.

        Args:
            prediction: as :func:`merged` returns it.
            target: as :func:`joined` returns it.
            class_index: position of the episode's class among the novel classes.
        """
        ids = self.classes + 2
        counted = target != IGNORE
        pairs = target[counted] * ids + prediction[counted]
        confusion = torch.bincount(pairs, minlength=ids * ids).reshape(ids, ids)
        inter, target_pixels = confusion.diagonal(), confusion.sum(dim=1)
        self.counts[int(class_index)] += torch.stack([inter, target_pixels + confusion.sum(dim=0) - inter], dim=1)
        self.episodes += torch.stack([torch.ones_like(target_pixels[-1]), (target_pixels[-1] > 0).long()])

    def compute(self) -> GeneralisedScores:
        """Return the scores over all episodes."""
        counts = self.counts.double()
        total = counts.sum(dim=0)
        iou = total[:, 0] / (total[:, 1] + EPS)
        novel = counts[:, -1, 0] / (counts[:, -1, 1] + EPS)
        pooled = total[1:, 0].sum() / (total[1:, 1].sum() + EPS)
        return GeneralisedScores(
            base=tuple(float(v) for v in iou[1:-1]),
            novel=tuple(float(v) for v in novel),
            fb_iou=float((iou[0] + pooled) / 2),
            foreground_iou=float(pooled),
            episodes=int(self.episodes[0]),
            novel_count=int(self.episodes[1]),
            base_kept=self.base_kept,
            novel_kept=self.novel_kept,
        )
