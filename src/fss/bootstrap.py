"""How far a score may be off: images are drawn anew, class by class, and episodes follow the images they show."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95
SAMPLES = 1000
SEED = 0
_EPS = 1e-10


def method(samples: int = SAMPLES, seed: int = SEED) -> dict[str, Any]:
    """Say how intervals are made, for result files.

    Args:
        samples: number of resamples.
        seed: of the resampling.

    Returns:
        Plain values.
    """
    return {
        "method": "Bayesian bootstrap, percentiles; their spread is that in which two episodes depend on each other "
        "if they share an image",
        "resampled": "the images of each class (an episode's weight is that of its query times those of its supports)",
        "samples": samples,
        "level": LEVEL,
        "seed": seed,
    }


@dataclass(frozen=True)
class Estimate:
    """A score, how every episode pulls at it, and its value in every resample; estimates can be added and scaled.

    Attributes:
        value: the score.
        influence: change of the score per unit of an episode's weight, (N,).
        replicates: its value in every resample, (samples,).
    """

    value: float
    influence: Floats
    replicates: Floats

    def __add__(self, other: Estimate) -> Estimate:
        """Return the sum, from the same resamples."""
        return Estimate(self.value + other.value, self.influence + other.influence, self.replicates + other.replicates)

    def __sub__(self, other: Estimate) -> Estimate:
        """Return the difference, from the same resamples: the paired comparison of two models on the same episodes."""
        return self + other.times(-1.0)

    def times(self, factor: float) -> Estimate:
        """Return a multiple.

        Args:
            factor: any number.
        """
        return Estimate(factor * self.value, factor * self.influence, factor * self.replicates)


class Resamples:
    """Weights of episodes in resamples of their images, stratified by class.

    The test images of a class are a sample of all its images. Every resample gives each of them a weight (standard
    exponential, scaled to a mean of 1: the Bayesian bootstrap), independently for every class; an episode weighs what
    its query and its supports weigh, multiplied; the weights of a class sum to its number of episodes. So episodes
    that share a query or a support move together, an image counts once in both of its roles, and no class is ever
    missing from a resample.

    Products count the noise of a single episode once for each of its images and for each of their combinations, too
    much above all with many supports. :meth:`interval` therefore brings the spread of the replicates to that of an
    estimate in which every two episodes that share an image are counted once.

    Attributes:
        classes: position of the class of every episode, (N,).
        samples: number of resamples.
        seed: of the weights; those of a class do not depend on other classes.
    """

    def __init__(
        self,
        classes: Sequence[int],
        images: Sequence[Sequence[Hashable]],
        samples: int = SAMPLES,
        seed: int = SEED,
    ) -> None:
        """Number the images.

        Args:
            classes: position of the class of every episode, N of them, in the order of the episodes' numbers.
            images: ids of every episode's images, the query first, as many for each.
            samples: number of resamples.
            seed: of the weights.

        Raises:
            ValueError: if the two differ in length, or episodes in the number of images.
        """
        shots = {len(row) for row in images}
        if len(classes) != len(images) or len(shots) > 1 or 0 in shots:
            raise ValueError(
                f"{len(classes)} classes, {len(images)} episodes of {sorted(shots)} images: give the class of every "
                "episode, and its query and supports, as many for each."
            )
        self.classes: Ints = np.asarray(classes, dtype=np.int64).reshape(-1)
        self.samples, self.seed = samples, seed
        self._groups = {int(c): np.flatnonzero(self.classes == c) for c in np.unique(self.classes)}
        self._places = {c: _numbered([images[int(e)] for e in episodes]) for c, episodes in self._groups.items()}

    @cached_property
    def weights(self) -> Floats:
        """Weight of every episode in every resample, (samples, N); their mean over a class is 1."""
        made: Floats = np.empty((self.samples, len(self.classes)))
        for c, episodes in self._groups.items():
            places = self._places[c]
            drawn = np.random.default_rng([self.seed, c]).exponential(size=(self.samples, int(places.max()) + 1))
            own = drawn[:, places].prod(axis=2)
            made[:, episodes] = own * (len(episodes) / own.sum(axis=1, keepdims=True))
        return made

    def ratio(self, part: Floats, whole: Floats, of_class: int | None = None) -> Estimate:
        """Estimate a ratio of sums over episodes, such as an IoU.

        Args:
            part: of every episode, (N,).
            whole: of every episode, (N,).
            of_class: sum over the episodes of this class alone; without any, the ratio is 0 in every resample.

        Returns:
            The estimate.
        """
        n = len(self.classes)
        rows = np.arange(n) if of_class is None else self._groups.get(of_class, np.arange(0))
        above, below = np.asarray(part, dtype=np.float64)[rows], np.asarray(whole, dtype=np.float64)[rows]
        value = float(above.sum() / (below.sum() + _EPS))
        influence: Floats = np.zeros(n)
        influence[rows] = (above - value * below) / (below.sum() + _EPS)
        own = self.weights[:, rows]
        return Estimate(value, influence, (own @ above) / (own @ below + _EPS))

    def deviation(self, influence: Floats) -> float:
        """Return the standard error of an estimate: two episodes depend on each other if they share an image.

        Args:
            influence: of every episode, (N,).
        """
        return float(np.sqrt(sum(self._variance(c, influence[rows]) for c, rows in self._groups.items())))

    def interval(self, estimate: Estimate, lowest: float = -np.inf, highest: float = np.inf) -> tuple[float, float]:
        """Return the 95 % interval of an estimate.

        Args:
            estimate: made of :meth:`ratio`.
            lowest: least value that it can have.
            highest: largest one.

        Returns:
            Both ends.
        """
        ends = np.quantile(estimate.replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - estimate.value
        spread = float(estimate.replicates.std())
        if spread > _EPS:
            ends = ends * (self.deviation(estimate.influence) / spread)
        low, high = np.clip(estimate.value + ends, lowest, highest).tolist()
        return low, high

    def _variance(self, c: int, influence: Floats) -> float:
        """Return the part of a class in the variance; its number of episodes is given, so their mean does not count."""
        places = self._places[c]
        n, shot = int(places.max()) + 1, places.shape[1] - 1
        pull = influence - influence.mean()
        alone = float((pull**2).sum())
        by_query = np.bincount(places[:, 0], pull, minlength=n)
        by_image = sum((np.bincount(column, pull, minlength=n) for column in places.T), np.zeros(n))
        shared = max(float((by_image**2).sum()) - shot * alone, float((by_query**2).sum()))
        if n - 1 - shot > 0:  # the images are a sample, and an episode leaves its own ones out of its other slots
            shared *= n / (n - 1) * ((n - 1) / (n - 1 - shot)) ** 2
        return float(max(shared, alone))


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates from the same resamples.

    Args:
        estimates: at least one.
    """
    first, *rest = estimates
    return sum(rest, first).times(1 / len(estimates))


def _numbered(images: Sequence[Sequence[Hashable]]) -> Ints:
    """Number images by their first appearance, (episodes, images of each)."""
    numbers: dict[Hashable, int] = {}
    return np.array([[numbers.setdefault(image, len(numbers)) for image in row] for row in images], dtype=np.int64)
