"""Rank correlation within strata, pooled over groups of strata, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

SAMPLES = 500
_LEVELS = (0.025, 0.975)


@dataclass(frozen=True)
class Stratum:
    """Components that are ranked among each other: those of one layer of one run.

    Attributes:
        group: strata of one group are pooled, e.g. one layer of several runs.
        run: index of the run; strata of one run share their images.
        change: change of each component under each of Q measures, (Q, R).
        energy: foreground energy of each component in each image, (N, R); NaN where undefined.
    """

    group: str
    run: int
    change: Numbers
    energy: Numbers


@dataclass(frozen=True)
class Association:
    """A rank correlation.

    Attributes:
        count: number of components.
        value: Spearman's correlation; NaN where all changes or all energies are equal.
        low: lower end of the 95 % bootstrap interval.
        high: upper end of the interval.
    """

    count: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the value with its interval."""
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def midranks(values: Numbers, weights: Numbers) -> Numbers:
    """Rank weighted values; ties share the mean of their ranks.

    Args:
        values: (R,).
        weights: how often each value counts, (R,).

    Returns:
        Ranks as fractions in (0, 1), (R,); their weighted mean is 1/2.
    """
    return _ranks(_dense_ranks(values), weights)


def _dense_ranks(values: Numbers) -> NDArray[np.intp]:
    """Number the values by size; ties share a number."""
    _, dense = np.unique(values, return_inverse=True)
    return dense


def _ranks(dense: NDArray[np.intp], weights: Numbers) -> Numbers:
    counts = np.bincount(dense, weights=weights)
    ranks: Numbers = ((np.cumsum(counts) - counts / 2) / weights.sum())[dense]
    return ranks


def associate(
    strata: Sequence[Stratum], samples: int = SAMPLES, seed: int = 0
) -> list[tuple[dict[str, Association], Association]]:
    """Correlate change and mean energy by rank within each stratum.

    Ranking within strata keeps layers with large values or high energy from creating a correlation on their own. The
    bootstrap resamples images, and components within each stratum, with replacement.

    Args:
        strata: components to rank.
        samples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        For each measure of the change: the correlation of each group, in the order of the strata, and of all strata.
    """
    rng = np.random.default_rng(seed)
    dense = [[_dense_ranks(change) for change in one.change] for one in strata]
    # (1 + samples, strata, Q, 3); the first entry is the full sample
    table = np.array([_sums(strata, dense, None), *(_sums(strata, dense, rng) for _ in range(samples))])
    members: dict[str, list[int]] = {}
    for position, one in enumerate(strata):
        members.setdefault(one.group, []).append(position)
    everything = list(range(len(strata)))
    return [
        (
            {name: _association(strata, table[:, :, measure], positions) for name, positions in members.items()},
            _association(strata, table[:, :, measure], everything),
        )
        for measure in range(table.shape[2])
    ]


def _association(strata: Sequence[Stratum], table: Numbers, positions: list[int]) -> Association:
    xx, yy, xy = np.moveaxis(table[:, positions].sum(axis=1), -1, 0)
    scale = np.sqrt(xx * yy)
    values = np.divide(xy, scale, out=np.full_like(xy, np.nan), where=scale > 0)
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(drawn, _LEVELS) if drawn.size else (np.nan, np.nan)
    return Association(sum(strata[p].change.shape[1] for p in positions), float(values[0]), float(low), float(high))


def _sums(
    strata: Sequence[Stratum], dense_ranks: Sequence[Sequence[NDArray[np.intp]]], rng: np.random.Generator | None
) -> Numbers:
    """Return sums of squares and products of ranks, (strata, Q, 3): of a resample, or without ``rng`` of all."""
    images: dict[int, Numbers] = {}
    rows = []
    for one, measures in zip(strata, dense_ranks, strict=True):
        image_count, size = one.energy.shape
        if one.run not in images:
            images[one.run] = _draw(rng, image_count)
        energy = mean_energy(one.energy, images[one.run])
        weights = np.where(np.isnan(energy), 0, _draw(rng, size))
        if not weights.any():
            rows.append(np.zeros((len(measures), 3)))
            continue
        y = _ranks(_dense_ranks(np.nan_to_num(energy)), weights) - 0.5
        ranked = [_ranks(dense, weights) - 0.5 for dense in measures]
        rows.append(np.array([[weights @ (x * x), weights @ (y * y), weights @ (x * y)] for x in ranked]))
    return np.array(rows)


def mean_energy(energy: Numbers, weights: Numbers | None = None) -> Numbers:
    """Average over images, skipping those in which a component's energy is undefined.

    Args:
        energy: (N, R); NaN where undefined.
        weights: how often each image counts, (N,); None: once.

    Returns:
        (R,); NaN for a component without a valid image.
    """
    valid = ~np.isnan(energy)
    counts = np.ones(len(energy)) if weights is None else weights
    total = counts @ valid
    summed: Numbers = counts @ np.where(valid, energy, 0.0)
    return np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0)


def _draw(rng: np.random.Generator | None, size: int) -> Numbers:
    """Return how often each of ``size`` items is drawn; without a generator, each once."""
    if rng is None:
        return np.ones(size)
    return np.bincount(rng.integers(size, size=size), minlength=size).astype(np.float64)
