"""Rank correlation within groups, pooled over them, with a bootstrap interval."""

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
        run: strata of one run share their images.
        change: of each component, by each of Q ways to measure it, (Q, R).
        energy: of each component in each image, (N, R); NaN where it is not defined.
    """

    group: str
    run: int
    change: Numbers
    energy: Numbers


@dataclass(frozen=True)
class Association:
    """A rank correlation.

    Attributes:
        count: components.
        value: Spearman's correlation; NaN where all changes or all energies are equal.
        low: lower end of the 95 % bootstrap interval.
        high: its upper end.
    """

    count: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the value with its interval."""
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def midranks(values: Numbers, weights: Numbers) -> Numbers:
    """Rank values that count several times; equal ones share the middle of their places.

    Args:
        values: (R,).
        weights: how often each counts, (R,).

    Returns:
        Ranks as a share of all, in (0, 1), (R,); their weighted mean is 1/2.
    """
    return _ranks(_places(values), weights)


def _places(values: Numbers) -> NDArray[np.intp]:
    """Number values by size; equal ones share a number."""
    _, place = np.unique(values, return_inverse=True)
    return place


def _ranks(place: NDArray[np.intp], weights: Numbers) -> Numbers:
    at = np.bincount(place, weights=weights)
    ranks: Numbers = ((np.cumsum(at) - at / 2) / weights.sum())[place]
    return ranks


def associate(
    strata: Sequence[Stratum], samples: int = SAMPLES, seed: int = 0
) -> list[tuple[dict[str, Association], Association]]:
    """Correlate change and mean energy by rank within every stratum.

    Ranks are taken within a stratum, so that layers with large values or much energy do not make a correlation by
    themselves. The bootstrap draws images, and components within every stratum, with replacement.

    Args:
        strata: what is ranked.
        samples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        For each way to measure the change: per group, in the order of the strata, and all together.
    """
    rng = np.random.default_rng(seed)
    # (1 + samples, strata, Q, 3)
    places = [[_places(change) for change in one.change] for one in strata]
    table = np.array([_sums(strata, places, None), *(_sums(strata, places, rng) for _ in range(samples))])
    members: dict[str, list[int]] = {}
    for position, one in enumerate(strata):
        members.setdefault(one.group, []).append(position)
    everything = list(range(len(strata)))
    return [
        (
            {name: _association(strata, table[:, :, way], places) for name, places in members.items()},
            _association(strata, table[:, :, way], everything),
        )
        for way in range(table.shape[2])
    ]


def _association(strata: Sequence[Stratum], table: Numbers, places: list[int]) -> Association:
    xx, yy, xy = np.moveaxis(table[:, places].sum(axis=1), -1, 0)
    scale = np.sqrt(xx * yy)
    values = np.divide(xy, scale, out=np.full_like(xy, np.nan), where=scale > 0)
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(drawn, _LEVELS) if drawn.size else (np.nan, np.nan)
    return Association(sum(strata[p].change.shape[1] for p in places), float(values[0]), float(low), float(high))


def _sums(
    strata: Sequence[Stratum], places: Sequence[Sequence[NDArray[np.intp]]], rng: np.random.Generator | None
) -> Numbers:
    """Return the sums of squares and products of the ranks of one resample, or of everything once, (strata, Q, 3)."""
    images: dict[int, Numbers] = {}
    rows = []
    for one, ways in zip(strata, places, strict=True):
        shown, size = one.energy.shape
        if one.run not in images:
            images[one.run] = _draw(rng, shown)
        energy = mean_energy(one.energy, images[one.run])
        weights = np.where(np.isnan(energy), 0, _draw(rng, size))
        if not weights.any():
            rows.append(np.zeros((len(ways), 3)))
            continue
        y = _ranks(_places(np.nan_to_num(energy)), weights) - 0.5
        ranked = [_ranks(place, weights) - 0.5 for place in ways]
        rows.append(np.array([[weights @ (x * x), weights @ (y * y), weights @ (x * y)] for x in ranked]))
    return np.array(rows)


def mean_energy(energy: Numbers, weights: Numbers | None = None) -> Numbers:
    """Average over images; those in which a component has no energy do not count for it.

    Args:
        energy: (N, R), with NaN.
        weights: how often each image counts, (N,); None: once.

    Returns:
        (R,); NaN for a component without any image.
    """
    known = ~np.isnan(energy)
    counts = np.ones(len(energy)) if weights is None else weights
    total = counts @ known
    summed: Numbers = counts @ np.where(known, energy, 0.0)
    return np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0)


def _draw(rng: np.random.Generator | None, size: int) -> Numbers:
    """Return how often each of ``size`` things is drawn; each once without a generator."""
    if rng is None:
        return np.ones(size)
    return np.bincount(rng.integers(size, size=size), minlength=size).astype(np.float64)
