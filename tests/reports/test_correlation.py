"""Rank correlation against scipy, and its bootstrap where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from fss.reports.correlation import Numbers, Stratum, associate, mean_energy, midranks


def stratum(change: Numbers, energy: Numbers, group: str = "a", run: int = 0) -> Stratum:
    return Stratum(group, run, np.atleast_2d(change), np.atleast_2d(energy))


def value(strata: list[Stratum]) -> float:
    return associate(strata, samples=2)[0][1].value


@pytest.mark.parametrize("levels", [1000, 4])
def test_spearman_is_that_of_scipy_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    x = rng.integers(levels, size=60).astype(float)
    y = np.round(x / levels + rng.normal(size=60), 1)
    assert value([stratum(x, y)]) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_weighted_ranks_are_those_of_repeated_values() -> None:
    values, weights = np.array([3.0, 1.0, 2.0, 2.0]), np.array([2.0, 1.0, 3.0, 0.0])
    repeated = np.repeat(values, weights.astype(int))
    expected = (rankdata(repeated) - 0.5) / len(repeated)
    assert np.allclose(np.repeat(midranks(values, weights), weights.astype(int)), expected)
    assert weights @ midranks(values, weights) / weights.sum() == pytest.approx(0.5)


def test_layers_do_not_make_a_correlation_by_themselves() -> None:
    """One layer has large changes and energies, the other small ones; within each they are opposite."""
    ramp = np.linspace(0, 1, 30)
    strata = [stratum(ramp, -ramp, "a"), stratum(100 + ramp, 100 - ramp, "b")]
    assert spearmanr(np.concatenate([ramp, 100 + ramp]), np.concatenate([-ramp, 100 - ramp])).statistic > 0.4
    assert value(strata) == pytest.approx(-1)


def test_groups_pool_runs_and_ways_stay_apart() -> None:
    ramp = np.linspace(0, 1, 20)
    both = np.stack([ramp, -ramp])
    strata = [Stratum("a", 0, both, ramp[None]), Stratum("a", 1, both, ramp[None]), Stratum("b", 0, both, -ramp[None])]
    (up, pooled), (down, _) = associate(strata, samples=20)
    assert [(name, one.count, round(one.value, 9)) for name, one in up.items()] == [("a", 40, 1), ("b", 20, -1)]
    assert [round(one.value, 9) for one in down.values()] == [-1, 1]
    assert pooled.count == 60
    assert pooled.value == pytest.approx(1 / 3)
    assert up["a"].low == pytest.approx(1), "every resample of a perfect order is one"


def test_images_are_drawn_too() -> None:
    """Each of two images decides the order by itself, so that the interval spans both answers."""
    ramp = np.linspace(0, 1, 30)
    one = associate([stratum(ramp, np.stack([2 * ramp, -1.9 * ramp]))], samples=200)[0][1]
    assert one.value == pytest.approx(1)
    assert one.low == pytest.approx(-1)


def test_what_is_undefined_stays_so() -> None:
    ramp, flat, nothing = np.linspace(0, 1, 5), np.zeros(5), np.full((2, 5), np.nan)
    assert np.isnan(value([stratum(flat, ramp)]))
    assert np.isnan(value([stratum(ramp, nothing)]))
    assert value([stratum(ramp, nothing), stratum(ramp, np.stack([ramp, ramp]))]) == pytest.approx(1)


def test_mean_energy_leaves_out_undefined_images() -> None:
    energy = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    assert np.array_equal(mean_energy(energy), [2.0, 5.0, np.nan], equal_nan=True)
    assert np.array_equal(mean_energy(energy, np.array([3.0, 1.0])), [1.5, 5.0, np.nan], equal_nan=True)


def test_same_seed_same_interval() -> None:
    rng = np.random.default_rng(0)
    some = [stratum(rng.normal(size=40), rng.normal(size=(6, 40)))]
    assert associate(some, 50) == associate(some, 50)
    assert associate(some, 50) != associate(some, 50, seed=1)
