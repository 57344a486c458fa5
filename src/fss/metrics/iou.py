"""Intersections and unions per episode, and the mIoU and FB-IoU computed from them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fss.bootstrap import SAMPLES, SEED, Estimate, Resamples, mean_of
from fss.errors import FssError
from fss.types import IGNORE

EPS = 1e-10
_INDEX, _CLASS, _COUNTS, _IMAGES = 0, 1, slice(2, 6), 6
Interval = tuple[float, float]


def episode_counts(prediction: Tensor, target: Tensor) -> Tensor:
    """Count one episode's intersections and unions, without ignored pixels.

    Args:
        prediction: 0 or 1, any shape.
        target: 0, 1 or 255, the same shape.

    Returns:
        [background intersection, background union, foreground intersection, foreground union], int64.

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    valid = target != IGNORE
    p, t = (prediction == 1) & valid, (target == 1) & valid
    total, inter_fg, union_fg = valid.sum(), (p & t).sum(), (p | t).sum()
    return torch.stack([total - union_fg, total - inter_fg, inter_fg, union_fg])


@dataclass  # not frozen: torchmetrics traverses what compute returns and rejects frozen dataclasses
class Scores:
    """Scores in [0, 1].

    Attributes:
        miou: mean of ``per_class`` over the classes that count.
        fb_iou: mean of background and foreground IoU, each accumulated over all episodes.
        per_class: foreground IoU accumulated over each class's episodes, (classes); 0 without episodes.
        episodes: number of distinct episodes.
        miou_interval: interval of ``miou``, see :class:`fss.bootstrap.Resamples`; NaN if not computed.
        fb_iou_interval: interval of ``fb_iou``.
        class_intervals: interval of every class; None for a class without episodes.
        class_episodes: number of episodes of every class.
    """

    miou: float
    fb_iou: float
    per_class: tuple[float, ...]
    episodes: int
    miou_interval: Interval
    fb_iou_interval: Interval
    class_intervals: tuple[Interval | None, ...]
    class_episodes: tuple[int, ...]


def kept_classes(classes: int, left_out: Collection[int]) -> tuple[int, ...]:
    """List the classes over which a mean is taken.

    Args:
        classes: number of classes.
        left_out: positions of those that do not count.

    Returns:
        Positions, ascending.

    Raises:
        FssError: if none is left.
    """
    kept = tuple(c for c in range(classes) if c not in left_out)
    if classes and not kept:
        raise FssError(
            f"All {classes} classes are left out of the mean IoU, as each has fewer test images than "
            "data.min_test_images asks for. Lower it, or set it to null."
        )
    return kept


def _totals(rows: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the foreground IoU of every class, (classes), and the FB-IoU."""
    counts = rows[:, _COUNTS].double()
    one_hot = torch.nn.functional.one_hot(rows[:, _CLASS], classes).double()
    inter, union, pooled = one_hot.T @ counts[:, 2], one_hot.T @ counts[:, 3], counts.sum(dim=0)
    background = pooled[0] / (pooled[1] + EPS)
    foreground = pooled[2] / (pooled[3] + EPS)
    return inter / (union + EPS), (background + foreground) / 2


class EpisodeIoU(Metric):
    """mIoU and FB-IoU over episodes (protocol D.3), with bootstrap intervals over the episodes' images.

    Keeps one row per episode and drops repeated ones, so that every episode counts exactly once on any number of
    processes.

    Attributes:
        counted: the :meth:`table` of the last :meth:`compute`, over all processes.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, classes: int, samples: int = SAMPLES, seed: int = SEED, left_out: Collection[int] = ()) -> None:
        """Declare the state.

        Args:
            classes: number of classes.
            samples: number of bootstrap samples; 0 skips the intervals.
            seed: seed of the bootstrap.
            left_out: positions of classes that the mean over classes leaves out; FB-IoU counts their pixels too.

        Raises:
            FssError: if no class is left.
        """
        super().__init__()
        self.classes = classes
        self.kept = kept_classes(classes, left_out)
        self.samples = samples
        self.seed = seed
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.counted = torch.zeros(0, 6, dtype=torch.int64)

    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        class_index: int | Tensor,
        index: int | Tensor,
        images: Sequence[str] = (),
    ) -> None:
        """Add one episode.

        Args:
            prediction: 0 or 1, (H, W).
            target: 0, 1 or 255, (H, W).
            class_index: position of the episode's class, below ``classes``.
            index: number of the episode in its stream.
            images: ids of query and supports, query first; needed only for intervals.

        Raises:
            ValueError: if shapes differ, the class is out of range, or images are missing.
        """
        if not 0 <= int(class_index) < self.classes:
            raise ValueError(f"class index {int(class_index)} is outside the {self.classes} classes of this metric")
        if self.samples and not images:
            raise ValueError(f"episode {int(index)} comes without its images, which intervals need; or set samples=0")
        counts = episode_counts(prediction, target)
        key = torch.tensor([int(index), int(class_index)], device=counts.device)
        image_hashes = torch.tensor([_image_hash(image) for image in images], dtype=torch.int64, device=counts.device)
        self.rows.append(torch.cat([key, counts, image_hashes])[None])

    def table(self) -> Tensor:
        """Return one row per distinct episode: index, class, and the four counts, (N, 6), sorted by index."""
        return self._distinct()[:, :_IMAGES]

    def compute(self) -> Scores:
        """Return the scores over all episodes."""
        rows = self._distinct()
        self.counted = rows[:, :_IMAGES]
        n, not_computed = len(rows), (float("nan"), float("nan"))
        zeros, no_intervals = (0.0,) * self.classes, (None,) * self.classes
        if n == 0:
            return Scores(0.0, 0.0, zeros, 0, (0.0, 0.0), (0.0, 0.0), no_intervals, (0,) * self.classes)
        per_class, fb = _totals(rows, self.classes)
        class_episodes = tuple(torch.bincount(rows[:, _CLASS], minlength=self.classes).tolist())
        miou, fb_iou, classes = self._intervals(rows) if self.samples else (not_computed, not_computed, no_intervals)
        values = tuple(float(v) for v in per_class)
        return Scores(
            float(per_class[list(self.kept)].mean()), float(fb), values, n, miou, fb_iou, classes, class_episodes
        )

    def _intervals(self, rows: Tensor) -> tuple[Interval, Interval, tuple[Interval | None, ...]]:
        """Return the intervals of mIoU, of FB-IoU and of every class that has episodes."""
        resamples = Resamples(rows[:, _CLASS].tolist(), rows[:, _IMAGES:].tolist(), self.samples, self.seed)
        background, background_union, foreground, foreground_union = rows[:, _COUNTS].double().numpy().T
        classes = [resamples.ratio(foreground, foreground_union, c) for c in range(self.classes)]
        fb = mean_of([resamples.ratio(background, background_union), resamples.ratio(foreground, foreground_union)])

        def interval(estimate: Estimate) -> Interval:
            return resamples.interval(estimate, 0.0, 1.0)

        present = set(rows[:, _CLASS].tolist())
        per_class = tuple(interval(one) if c in present else None for c, one in enumerate(classes))
        return interval(mean_of([classes[c] for c in self.kept])), interval(fb), per_class

    def _distinct(self) -> Tensor:
        """Return the rows of :meth:`table`, followed by the hashes of each episode's images."""
        state: Any = self.rows  # a list, or one tensor once gathered from all processes
        chunks = [state] if isinstance(state, Tensor) else list(state)
        if not any(chunk.numel() for chunk in chunks):
            return torch.zeros(0, _IMAGES, dtype=torch.int64)
        rows = torch.cat([chunk for chunk in chunks if chunk.numel()])
        rows = rows[rows[:, _INDEX].argsort(stable=True)].cpu()
        first = torch.ones(len(rows), dtype=torch.bool)
        first[1:] = rows[1:, _INDEX] != rows[:-1, _INDEX]
        return rows[first]


def _image_hash(image: str) -> int:
    """Hash an image id, with the same result on every process."""
    return int.from_bytes(hashlib.blake2b(image.encode(), digest_size=8).digest(), "big", signed=True)
