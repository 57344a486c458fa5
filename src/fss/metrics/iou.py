"""Intersections and unions per episode, and the mIoU and FB-IoU computed from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from fss.types import IGNORE

EPS = 1e-10
_INDEX, _CLASS, _COUNTS = 0, 1, slice(2, 6)


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
        miou: mean of ``per_class``.
        fb_iou: mean of background and foreground IoU, each accumulated over all episodes.
        per_class: foreground IoU accumulated over each class's episodes, (classes); 0 without episodes.
        episodes: number of distinct episodes.
        miou_interval: bootstrap interval of ``miou``.
        fb_iou_interval: bootstrap interval of ``fb_iou``.
    """

    miou: float
    fb_iou: float
    per_class: tuple[float, ...]
    episodes: int
    miou_interval: tuple[float, float]
    fb_iou_interval: tuple[float, float]


def _totals(rows: Tensor, weights: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return per-class foreground IoU (samples, classes) and FB-IoU (samples) under episode weights (samples, N)."""
    counts = rows[:, _COUNTS].double()
    one_hot = torch.nn.functional.one_hot(rows[:, _CLASS], classes).double()
    inter = weights @ (one_hot * counts[:, 2:3])
    union = weights @ (one_hot * counts[:, 3:4])
    pooled = weights @ counts
    background = pooled[:, 0] / (pooled[:, 1] + EPS)
    foreground = pooled[:, 2] / (pooled[:, 3] + EPS)
    return inter / (union + EPS), (background + foreground) / 2


class EpisodeIoU(Metric):
    """mIoU and FB-IoU over episodes (protocol D.3), with a bootstrap interval over episodes.

    Keeps one row per episode and drops repeated ones, so that every episode counts exactly once on any number of
    processes.

    Attributes:
        counted: the :meth:`table` of the last :meth:`compute`, over all processes.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, classes: int, samples: int = 1000, seed: int = 0) -> None:
        """Declare the state.

        Args:
            classes: number of classes.
            samples: number of bootstrap samples; 0 skips the interval.
            seed: seed of the bootstrap.
        """
        super().__init__()
        self.classes = classes
        self.samples = samples
        self.seed = seed
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.counted = torch.zeros(0, 6, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor, class_index: int | Tensor, index: int | Tensor) -> None:
        """Add one episode.

        Args:
            prediction: 0 or 1, (H, W).
            target: 0, 1 or 255, (H, W).
            class_index: position of the episode's class, below ``classes``.
            index: number of the episode in its stream.

        Raises:
            ValueError: if shapes differ or the class is out of range.
        """
        if not 0 <= int(class_index) < self.classes:
            raise ValueError(f"class index {int(class_index)} is outside the {self.classes} classes of this metric")
        counts = episode_counts(prediction, target)
        key = torch.tensor([int(index), int(class_index)], device=counts.device)
        self.rows.append(torch.cat([key, counts])[None])

    def table(self) -> Tensor:
        """Return one row per distinct episode: index, class, and the four counts, (N, 6), sorted by index."""
        state: Any = self.rows  # a list, or one tensor once gathered from all processes
        chunks = [state] if isinstance(state, Tensor) else list(state)
        if not any(chunk.numel() for chunk in chunks):
            return torch.zeros(0, 6, dtype=torch.int64)
        rows = torch.cat([chunk for chunk in chunks if chunk.numel()])
        rows = rows[rows[:, _INDEX].argsort(stable=True)].cpu()
        first = torch.ones(len(rows), dtype=torch.bool)
        first[1:] = rows[1:, _INDEX] != rows[:-1, _INDEX]
        return rows[first]

    def compute(self) -> Scores:
        """Return the scores over all episodes."""
        rows = self.counted = self.table()
        n = len(rows)
        if n == 0:
            return Scores(0.0, 0.0, (0.0,) * self.classes, 0, (0.0, 0.0), (0.0, 0.0))
        per_class, fb = _totals(rows, torch.ones(1, n, dtype=torch.float64), self.classes)
        miou_interval = fb_interval = (float("nan"), float("nan"))
        if self.samples:
            generator = torch.Generator().manual_seed(self.seed)
            draws = torch.randint(n, (self.samples, n), generator=generator)
            weights = torch.zeros(self.samples, n, dtype=torch.float64)
            weights.scatter_add_(1, draws, torch.ones_like(weights))
            sample_classes, sample_fb = _totals(rows, weights, self.classes)
            miou_interval, fb_interval = _interval(sample_classes.mean(dim=1)), _interval(sample_fb)
        values = tuple(float(v) for v in per_class[0])
        return Scores(float(per_class.mean()), float(fb[0]), values, n, miou_interval, fb_interval)


def _interval(values: Tensor) -> tuple[float, float]:
    """Return the central 95 % of bootstrap values."""
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high
