"""Intervals of scores: what is drawn anew, what cannot be missing, and how often the truth lies inside."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fss.bootstrap import Estimate, Resamples, mean_of, method

Floats = NDArray[np.float64]
IMAGES, CLASSES = 60, 5


def draw_episodes(rng: np.random.Generator, count: int, shot: int) -> NDArray[np.int64]:
    """Return the images of a class's episodes: queries go through the list, supports are any others."""
    queries = np.arange(count) % IMAGES
    supports = [rng.permutation(np.delete(np.arange(IMAGES), q))[:shot] for q in queries]
    return np.column_stack([queries, np.array(supports)])


def pixels(rng: np.random.Generator, images: NDArray[np.int64], pool: int, noise: float = 0.7) -> tuple[Floats, Floats]:
    """Return intersection and union of episodes; images differ as queries, as supports (a bit alike), and in size."""
    query, area = rng.normal(size=pool), np.exp(rng.normal(size=pool))
    support = 0.5 * query + np.sqrt(0.75) * rng.normal(size=pool)
    score = 0.8 + query[images[:, 0]] + support[images[:, 1:]].mean(axis=1) + noise * rng.normal(size=len(images))
    iou = 1 / (1 + np.exp(-score))
    union = area[images[:, 0]] * (1.3 - 0.3 * iou)
    return iou * union, union


def truth(shot: int) -> float:
    """Return the score of all images there are."""
    rng = np.random.default_rng(123)
    total = np.zeros(2)
    for _ in range(20):
        images = np.arange(100_000 * (shot + 1)).reshape(-1, shot + 1)
        total += [counts.sum() for counts in pixels(rng, images, images.size)]
    return float(total[0] / total[1])


def coverage(shot: int, episodes: int, repetitions: int, samples: int = 400) -> float:
    """Return how often the interval of mIoU holds the truth, in per cent."""
    rng, real, hits, each = np.random.default_rng(7), truth(shot), 0, 100
    for _ in range(repetitions // each):
        drawn = [draw_episodes(rng, episodes, shot) for _ in range(CLASSES)]
        classes = np.repeat(np.arange(CLASSES), episodes)
        resamples = Resamples(classes.tolist(), np.concatenate(drawn).tolist(), samples)
        for _ in range(each):
            counted = [pixels(rng, images, IMAGES) for images in drawn]
            inter, union = (np.concatenate([one[k] for one in counted]) for k in (0, 1))
            miou = mean_of([resamples.ratio(inter, union, c) for c in range(CLASSES)])
            low, high = resamples.interval(miou, 0.0, 1.0)
            hits += low <= real <= high
    return 100 * hits / repetitions


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """60 images a class, 200 episodes each, support effects; 2,000 repetitions."""
    assert 92 <= coverage(shot=1, episodes=200, repetitions=2000) <= 98


@pytest.mark.parametrize(("shot", "episodes"), [(1, 60), (5, 200)])
def test_also_with_few_episodes_and_with_many_supports(shot: int, episodes: int) -> None:
    """Products of weights alone are twice too wide with five supports: 100 %."""
    assert 92 <= coverage(shot, episodes, repetitions=300, samples=300) <= 98


@pytest.mark.slow
@pytest.mark.parametrize(("shot", "episodes"), [(1, 60), (1, 1000), (5, 60), (5, 200), (5, 1000), (10, 200)])
def test_in_two_thousand_repetitions(shot: int, episodes: int) -> None:
    assert 92 <= coverage(shot, episodes, repetitions=2000) <= 98


def test_episodes_of_one_query_count_as_one() -> None:
    """Ten times the same ten queries say no more than once; with supports of their own nothing else is shared."""
    rng = np.random.default_rng(0)
    inter = rng.random(10)
    once = Resamples([0] * 10, [(q,) for q in range(10)])
    often = Resamples([0] * 100, [(q % 10,) for q in range(100)])
    first = once.interval(once.ratio(inter, np.ones(10)))
    assert often.interval(often.ratio(np.tile(inter, 10), np.ones(100))) == pytest.approx(first, abs=1e-9)
    alone = Resamples([0] * 100, [(e,) for e in range(100)])
    low, high = alone.interval(alone.ratio(np.tile(inter, 10), np.ones(100)))
    assert high - low < 0.4 * (first[1] - first[0]), "what counting them as independent would say"


def test_supports_count() -> None:
    """Every query once, half of the episodes with a support with which all fails."""
    good = np.array([1.0, 0.0] * 20)
    classes, queries = [0] * 40, [f"q{e}" for e in range(40)]
    shared = Resamples(classes, [(q, f"s{e % 2}") for e, q in enumerate(queries)])
    own = Resamples(classes, [(q, f"s{e}") for e, q in enumerate(queries)])
    widths = [np.ptp(r.interval(r.ratio(good, np.ones(40)), 0, 1)) for r in (shared, own)]
    assert widths[0] == pytest.approx(1.0), "two supports, one of which decides: nothing is known"
    assert widths[1] < 0.4


def test_no_class_is_missing_from_a_resample() -> None:
    """Class 1 has one episode; perfect predictions leave no doubt."""
    resamples = Resamples([0, 0, 0, 1], [("a", "b"), ("b", "c"), ("c", "a"), ("x", "y")])
    counts = np.array([5.0, 7.0, 3.0, 2.0])
    each = [resamples.ratio(counts, counts, c) for c in (0, 1)]
    assert resamples.interval(mean_of(each)) == pytest.approx((1.0, 1.0))
    assert resamples.interval(each[1]) == pytest.approx((1.0, 1.0))
    for c, episodes in ((0, slice(0, 3)), (1, slice(3, 4))):
        means = resamples.weights[:, episodes].mean(axis=1)
        assert means == pytest.approx(np.ones(1000)), f"class {c}"
    assert (resamples.weights >= 0).all()


def test_a_class_without_episodes_is_nothing_in_every_resample() -> None:
    resamples = Resamples([0], [("a", "b")])
    none = resamples.ratio(np.ones(1), np.ones(1), 3)
    assert (none.value, resamples.interval(none)) == (0.0, (0.0, 0.0))


def test_weights_follow_the_images() -> None:
    resamples = Resamples([0, 0, 0], [("a", "b"), ("b", "a"), ("a", "c")], samples=50)
    assert resamples.weights[:, 0] == pytest.approx(resamples.weights[:, 1]), "the same images in other roles"
    assert not np.allclose(resamples.weights[:, 0], resamples.weights[:, 2])
    other = Resamples([0, 0, 0, 1], [("a", "b"), ("b", "a"), ("a", "c"), ("a", "b")], samples=50)
    assert np.array_equal(other.weights[:, :3], resamples.weights), "whatever other classes there are"
    renamed = Resamples([0, 0, 0], [(7, 1), (1, 7), (7, 2)], samples=50)
    assert np.array_equal(renamed.weights, resamples.weights), "names do not matter"
    assert not np.array_equal(
        Resamples([0, 0, 0], [("a", "b"), ("b", "a"), ("a", "c")], 50, 1).weights, renamed.weights
    )


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    """A model that is better by the same on every episode is better for sure."""
    rng = np.random.default_rng(3)
    images = draw_episodes(rng, 200, 1)
    resamples = Resamples([0] * 200, images.tolist())
    inter, union = pixels(rng, images, IMAGES)
    one, two = resamples.ratio(inter, union), resamples.ratio(inter + 0.02 * union, union)
    gain: Estimate = two - one
    assert gain.value == pytest.approx(0.02)
    assert resamples.interval(gain) == pytest.approx((0.02, 0.02))
    low, high = resamples.interval(one)
    assert high - low > 0.1


def test_what_does_not_fit_is_refused() -> None:
    for classes, images in (([0, 0], [("a",)]), ([0, 0], [("a",), ("a", "b")]), ([0], [()])):
        with pytest.raises(ValueError, match="give the class of every episode"):
            Resamples(classes, images)


def test_the_result_says_how() -> None:
    said = method(100, 3)
    assert (said["samples"], said["seed"], said["level"]) == (100, 3, 0.95)
    assert "images of each class" in said["resampled"]
