"""mIoU and FB-IoU by hand and against an independent histogram formula."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor

from fss.errors import FssError
from fss.metrics.iou import EpisodeIoU, Scores, episode_counts

Row = tuple[Tensor, Tensor, int, int]


def images_of(row: Row) -> tuple[str, str]:
    """Return a query and a support of its own for every episode."""
    return f"q{row[3]}", f"s{row[3]}"


def compute(rows: Iterable[Row], classes: int, samples: int = 0) -> Scores:
    metric = EpisodeIoU(classes, samples)
    for row in rows:
        metric.update(*row, images_of(row))
    found = metric.compute()
    assert isinstance(found, Scores)
    return found


def maps(prediction: list[list[int]], target: list[list[int]]) -> tuple[Tensor, Tensor]:
    return torch.tensor(prediction), torch.tensor(target, dtype=torch.uint8)


# Three episodes of class 0, one of class 1, none of class 2; 255 in two of them.
HAND: list[Row] = [
    # fg: intersection 2, union 4; bg: 3 of 5 counted; 2 ignored pixels, one of them predicted foreground
    (*maps([[1, 1, 1], [0, 0, 0], [1, 0, 0]], [[1, 1, 0], [1, 0, 0], [255, 255, 0]]), 0, 0),
    # fg: 1 of 1, bg: 3 of 3
    (*maps([[1, 0], [0, 0]], [[1, 0], [0, 0]]), 0, 1),
    # nothing predicted: fg 0 of 2, bg 1 of 3; one ignored pixel
    (*maps([[0, 0], [0, 1]], [[1, 1], [0, 255]]), 0, 2),
    # class 1: fg 2 of 3, bg 0 of 1
    (*maps([[1, 1, 1]], [[1, 1, 0]]), 1, 3),
]
CLASS_0 = (2 + 1 + 0) / (4 + 1 + 2)
CLASS_1 = 2 / 3
FOREGROUND = (2 + 1 + 0 + 2) / (4 + 1 + 2 + 3)
BACKGROUND = (3 + 3 + 1 + 0) / (5 + 3 + 3 + 1)


def test_counts_of_one_episode_by_hand() -> None:
    counts = [episode_counts(p, t).tolist() for p, t, _, _ in HAND]
    assert counts == [[3, 5, 2, 4], [3, 3, 1, 1], [1, 3, 0, 2], [0, 1, 2, 3]]


def test_hand_computed_case() -> None:
    scores = compute(HAND, classes=3)
    assert scores.per_class == pytest.approx((CLASS_0, CLASS_1, 0.0))
    assert scores.miou == pytest.approx((CLASS_0 + CLASS_1 + 0) / 3), "an absent class counts as 0"
    assert scores.fb_iou == pytest.approx((FOREGROUND + BACKGROUND) / 2)
    assert scores.episodes == 4


def test_accumulated_and_not_averaged_over_episodes() -> None:
    mean_of_episodes = (2 / 4 + 1 / 1 + 0 / 2) / 3
    assert compute(HAND, classes=3).per_class[0] != pytest.approx(mean_of_episodes, abs=0.05)


def test_ignored_pixels_never_count() -> None:
    prediction, target = torch.ones(4, 4), torch.full((4, 4), 255)
    assert episode_counts(prediction, target).tolist() == [0, 0, 0, 0]
    scores = compute([(prediction, target, 0, 0)], 1)
    assert (scores.miou, scores.fb_iou) == (0.0, 0.0)


def test_order_and_batching_do_not_matter() -> None:
    expected = compute(HAND, classes=3, samples=50)
    shuffled = list(HAND)
    random.Random(1).shuffle(shuffled)
    assert compute(shuffled, classes=3, samples=50) == expected
    for sizes in ((1, 3), (3, 1), (2, 2)):
        parts, start = [], 0
        for size in sizes:
            part = EpisodeIoU(3, 50)
            for row in HAND[start : start + size]:
                part.update(*row, images_of(row))
            parts.append(part)
            start += size
        whole = EpisodeIoU(3, 50)
        whole.rows = [torch.cat(p.rows) for p in parts]  # what gathering processes gives
        assert whole.compute() == expected


def test_a_repeated_episode_counts_once() -> None:
    expected = compute(HAND, classes=3, samples=50)
    assert compute([*HAND, HAND[0], HAND[3], HAND[0]], classes=3, samples=50) == expected
    metric = EpisodeIoU(3)
    for row in [*HAND, HAND[2]]:
        metric.update(*row, images_of(row))
    assert metric.table()[:, 0].tolist() == [0, 1, 2, 3]
    assert metric.table()[:, 1].tolist() == [0, 0, 0, 1]


def test_equal_images_under_other_numbers_count_twice() -> None:
    p, t, c, _ = HAND[0]
    assert compute([*HAND, (p, t, c, 9)], classes=3).episodes == 5


def test_a_gathered_tensor_state() -> None:
    metric = EpisodeIoU(3, 20)
    for row in HAND:
        metric.update(*row, images_of(row))
    metric.rows = torch.cat(metric.rows)  # type: ignore[assignment]  # torchmetrics' form after a reduction
    assert metric.compute() == compute(HAND, 3, samples=20)


def test_no_episode() -> None:
    scores = compute([], 2)
    assert (scores.miou, scores.fb_iou, scores.per_class, scores.episodes) == (0.0, 0.0, (0.0, 0.0), 0)


def test_reset_forgets() -> None:
    metric = EpisodeIoU(3, 0)
    for row in HAND:
        metric.update(*row)
    metric.compute()
    metric.reset()
    assert len(metric.table()) == 0


def released(rows: list[Row], classes: int) -> tuple[float, float, list[float]]:
    """Protocol D.3: histograms of prediction, target and their intersection over the values 0 and 1."""
    inter, union = np.zeros(classes), np.zeros(classes)
    both_inter, both_union = np.zeros(2), np.zeros(2)
    for prediction, target, c, _ in rows:
        p, t = prediction.numpy().astype(int).ravel().copy(), target.numpy().astype(int).ravel()
        p[t == 255] = 255
        area_p, _ = np.histogram(p, bins=[0, 1, 1.5])
        area_t, _ = np.histogram(t, bins=[0, 1, 1.5])
        i, _ = np.histogram(p[p == t], bins=[0, 1, 1.5])
        u = area_p + area_t - i
        inter[c] += i[1]
        union[c] += u[1]
        both_inter += i
        both_union += u
    per_class = inter / (union + 1e-10)
    return float(per_class.mean()), float((both_inter / (both_union + 1e-10)).mean()), per_class.tolist()


def random_rows(n: int, classes: int, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(n):
        shape = tuple(rng.integers(3, 30, 2))
        target = rng.choice([0, 1, 255], size=shape, p=[0.6, 0.3, 0.1]).astype(np.uint8)
        prediction = (rng.random(shape) < 0.4).astype(np.int64)
        rows.append((torch.from_numpy(prediction), torch.from_numpy(target), int(rng.integers(classes)), k))
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_released_formula(seed: int) -> None:
    rows = random_rows(40, 5, seed)
    miou, fb_iou, per_class = released(rows, 5)
    scores = compute(rows, 5)
    assert scores.miou == pytest.approx(miou, abs=1e-12)
    assert scores.fb_iou == pytest.approx(fb_iou, abs=1e-12)
    assert scores.per_class == pytest.approx(per_class, abs=1e-12)


def test_bootstrap_interval() -> None:
    rows = random_rows(60, 3, 0)
    scores = compute(rows, 3, samples=500)
    low, high = scores.miou_interval
    assert low < scores.miou < high
    assert scores.fb_iou_interval[0] < scores.fb_iou < scores.fb_iou_interval[1]
    assert high - low < 0.2
    assert compute(rows, 3, samples=500).miou_interval == (low, high), "deterministic"
    torch.manual_seed(5)
    torch.rand(3)
    assert compute(rows[::-1], 3, samples=500).miou_interval == (low, high), "whatever the global generator"
    few = compute(rows[:12], 3, samples=500).miou_interval
    assert few[1] - few[0] > high - low, "more episodes, narrower"


def test_interval_of_equal_episodes_has_no_width() -> None:
    prediction, target = maps([[1, 1], [0, 0]], [[1, 0], [0, 0]])
    scores = compute([(prediction, target, 0, k) for k in range(10)], 1, samples=100)
    assert scores.miou_interval == pytest.approx((0.5, 0.5))
    assert scores.fb_iou_interval == pytest.approx((scores.fb_iou, scores.fb_iou))


def test_interval_of_two_known_episodes() -> None:
    """IoU 0 and 1 with equal unions: two images of which one is perfect and one lost say nothing."""
    zero, one = torch.zeros(2, 2), torch.ones(2, 2)
    scores = compute([(zero, one, 0, 0), (one, one, 0, 1)], 1, samples=400)
    assert scores.miou == pytest.approx(0.5)
    assert scores.miou_interval == pytest.approx((0.0, 1.0))


def test_a_class_with_few_episodes_is_in_every_resample() -> None:
    """A perfect model: [1, 1]. Drawing episodes whatever their class, a third of the resamples lack the last class."""
    one = torch.ones(2, 2)
    scores = compute([(one, one, int(k == 9), k) for k in range(10)], 2, samples=200)
    assert scores.miou_interval == pytest.approx((1.0, 1.0))
    assert scores.class_intervals == (pytest.approx((1.0, 1.0)),) * 2
    assert scores.class_episodes == (9, 1)


def test_episodes_that_share_an_image_are_no_more_than_one() -> None:
    """Sixty episodes of six queries: the interval is that of six, about three times as wide as that of sixty."""
    rows = random_rows(6, 1, 0)
    again = [(p, t, c, 6 * turn + k) for turn in range(10) for p, t, c, k in rows]
    metric = EpisodeIoU(1, 400)
    for p, t, c, k in again:
        metric.update(p, t, c, k, (f"q{k % 6}", f"s{k}"))
    (low, high), apart = metric.compute().miou_interval, compute(again, 1, 400).miou_interval
    assert high - low > 2.5 * (apart[1] - apart[0])


def test_a_class_without_episodes_has_no_interval() -> None:
    scores = compute(HAND, 3, samples=50)
    assert scores.class_intervals[2] is None
    assert scores.class_episodes == (3, 1, 0)
    assert scores.miou_interval[1] <= 2 / 3, "it counts as 0 in mIoU, in every resample as in the score"


def test_intervals_need_images() -> None:
    with pytest.raises(ValueError, match="episode 0 comes without its images"):
        EpisodeIoU(3).update(*HAND[0])


def test_images_have_the_same_numbers_on_every_process() -> None:
    """Python's own hash of a text differs from process to process."""
    metric = EpisodeIoU(3)
    metric.update(*HAND[0], ("2007_000027", "ä"))
    assert metric.rows[0][0, 6:].tolist() == [-9124333175095967491, -1131041350483206087]


def test_no_samples_no_interval() -> None:
    assert all(np.isnan(v) for v in compute(HAND, 3, samples=0).miou_interval)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_class_out_of_range(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"class index {wrong} is outside the 3 classes"):
        EpisodeIoU(3).update(*HAND[0][:2], wrong, 0, ("q", "s"))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) and target \(2, 3\)"):
        episode_counts(torch.zeros(2, 2), torch.zeros(2, 3))


def test_logged_metric_is_a_torchmetrics_metric() -> None:
    metric = EpisodeIoU(3, 10)
    metric.update(HAND[0][0], HAND[0][1], torch.tensor(0), torch.tensor(0), ("q", "s"))
    assert metric.compute().episodes == 1
    assert metric.to("cpu").rows[0].dtype == torch.int64


def test_classes_left_out_count_in_fb_iou_alone() -> None:
    whole, part = EpisodeIoU(3, 0), EpisodeIoU(3, 0, left_out=(1,))
    for row in HAND:
        whole.update(*row)
        part.update(*row)
    every, found = whole.compute(), part.compute()
    assert found.miou == pytest.approx((CLASS_0 + 0) / 2)
    assert every.miou == pytest.approx((CLASS_0 + CLASS_1 + 0) / 3)
    assert (found.fb_iou, found.per_class, found.class_episodes) == (
        every.fb_iou,
        every.per_class,
        every.class_episodes,
    )


def test_the_interval_is_that_of_the_classes_that_count() -> None:
    """As if the episodes of the others had not been drawn."""
    rows = [(*maps([[1, 1, 0]], [[1, k % 2, 0]]), k % 2, k) for k in range(12)]
    alone, part = EpisodeIoU(1, 200), EpisodeIoU(2, 200, left_out=[1])
    for row in rows:
        part.update(*row, images_of(row))
        if row[2] == 0:
            alone.update(*row, images_of(row))
    expected, found = alone.compute(), part.compute()
    assert found.miou == pytest.approx(expected.miou)
    assert found.miou_interval == pytest.approx(found.class_intervals[0])
    assert found.class_intervals[1] is not None


def test_no_class_left_is_refused() -> None:
    with pytest.raises(FssError, match=r"All 2 classes are left out.*min_test_images"):
        EpisodeIoU(2, 0, left_out=(0, 1))
