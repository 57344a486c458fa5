from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from fss.data.episodes.index import ClassIndex
from fss.data.episodes.stateless import Draw, RandomStream, StatelessEpisodes, augment_seed
from fss.data.epoch_sampler import EpisodeIndexSampler
from fss.errors import DataError


@pytest.fixture
def index() -> ClassIndex:
    """60 images; image k holds class 3 if k is even and class 7 if k divides by 3, class 7 too small below 30."""
    images = tuple(f"p{k}" for k in range(60) if k % 2 == 0 or k % 3 == 0)
    numbers = [int(i[1:]) for i in images]
    present = np.array([[k % 2 == 0, k % 3 == 0] for k in numbers])
    per_class = {
        3: tuple(f"p{k}" for k in numbers if k % 2 == 0),
        7: tuple(f"p{k}" for k in numbers if k % 3 == 0 and k >= 30),
    }
    return ClassIndex((3, 7), images, per_class, present)


def test_stream_is_pinned_forever():
    stream = RandomStream(1, 321, 0)
    assert [stream.below(1000) for _ in range(5)] == [744, 799, 405, 516, 90]
    assert sorted(RandomStream(0, 5).permutation(50)) == list(range(50))


def test_below_is_uniform_without_modulo_bias():
    stream = RandomStream(9)
    counts = Counter(stream.below(6) for _ in range(6000))
    assert chisquare([counts[k] for k in range(6)]).pvalue > 0.001
    assert stream.below(1) == 0


def test_test_queries_follow_the_list_and_passes_redraw(index):
    n = len(index.images)
    episodes = StatelessEpisodes(index, 2, 321, "test", 3 * n)
    draws = [episodes.draw(0, i) for i in range(len(episodes))]
    assert [d.query for d in draws] == list(index.images) * 3
    assert draws[:n] != draws[n : 2 * n]
    assert draws == [episodes.draw(5, i) for i in range(len(episodes))]  # the epoch does not matter


@pytest.mark.parametrize("shot", [1, 5])
def test_released_rule(index, shot):
    for split in ("train", "val", "test"):
        episodes = StatelessEpisodes(index, shot, 1, split)
        for i in range(len(episodes)):
            draw = episodes.draw(3, i)
            assert index.present[index.images.index(draw.query), index.class_ids.index(draw.class_id)]
            assert len(set(draw.supports)) == shot
            assert draw.query not in draw.supports
            assert set(draw.supports) <= set(index.per_class[draw.class_id])


def test_training_epochs_are_permutations(index):
    episodes = StatelessEpisodes(index, 1, 321, "train")
    epochs = [[episodes.draw(e, i).query for i in range(len(episodes))] for e in range(3)]
    assert all(sorted(e) == sorted(index.images) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[1] == [episodes.draw(1, i).query for i in range(len(episodes))]
    other = StatelessEpisodes(index, 1, 322, "train")
    assert epochs[0] != [other.draw(0, i).query for i in range(len(episodes))]


def test_episode_depends_on_nothing_drawn_before(index):
    episodes = StatelessEpisodes(index, 1, 7, "train")
    forward = {(e, i): episodes.draw(e, i) for e in range(2) for i in range(20)}
    backward = {(e, i): episodes.draw(e, i) for e in (1, 0) for i in reversed(range(20))}
    assert forward == backward


def test_more_shots_extend_fewer(index):
    one, five = (StatelessEpisodes(index, k, 3, "test", 50) for k in (1, 5))
    for i in range(50):
        assert one.draw(0, i) == Draw(*_head(five.draw(0, i)))


def _head(draw):
    return draw.class_id, draw.query, draw.supports[:1]


def test_classes_and_supports_are_uniform(index):
    episodes = StatelessEpisodes(index, 1, 11, "test", 200 * len(index.images))
    row = next(k for k in range(len(index.images)) if index.present[k].all())
    draws = [episodes.draw(0, row + p * len(index.images)) for p in range(200)]
    classes = Counter(d.class_id for d in draws)
    assert chisquare([classes[3], classes[7]]).pvalue > 0.001
    supports = Counter(s for p in range(200) for s in episodes.draw(0, 1 + p * len(index.images)).supports)
    pool = [s for s in index.per_class[3] if s != index.images[1]]
    assert set(supports) == set(pool)
    assert chisquare([supports[s] for s in pool]).pvalue > 0.001


def test_splits_have_streams_of_their_own(index):
    val, test = (StatelessEpisodes(index, 1, 3, s, 60) for s in ("val", "test"))
    assert [val.draw(0, i) for i in range(60)] != [test.draw(0, i) for i in range(60)]


def test_too_few_supports_is_an_error_not_a_loop(index):
    with pytest.raises(DataError, match="shot=30"):
        StatelessEpisodes(index, 30, 3, "test").draw(0, 0)
    enough = len(index.per_class[7])
    odd = index.images.index("p3")  # holds class 7 alone and is not in its list
    assert set(StatelessEpisodes(index, enough, 3, "test").draw(0, odd).supports) == set(index.per_class[7])


@pytest.mark.parametrize("wrong", [{"shot": 0}, {"seed": -1}, {"length": 0}])
def test_wrong_numbers(index, wrong):
    with pytest.raises(DataError, match="not allowed"):
        StatelessEpisodes(**({"index": index, "shot": 1, "seed": 0, "split": "test"} | wrong))


def test_augment_seeds_differ_in_every_part():
    keys = [(1, 2, "train", 3, 4), (2, 2, "train", 3, 4), (1, 3, "train", 3, 4), (1, 2, "val", 3, 4)]
    keys += [(1, 2, "train", 4, 4), (1, 2, "train", 3, 5)]
    assert len({augment_seed(*k) for k in keys}) == len(keys)
    assert augment_seed(*keys[0]) == augment_seed(*keys[0])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_test_episode_is_seen_once(world):
    seen = [key for r in range(world) for key in EpisodeIndexSampler(10, 4, r, world)]
    assert sorted(seen) == [(0, i) for i in range(10)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_global_training_batches_do_not_depend_on_processes(world):
    samplers = [EpisodeIndexSampler(20, 6, r, world, training=True) for r in range(world)]
    for sampler in samplers:
        sampler.set_epoch(4)
        assert len(sampler) == 18 // world
    each = 6 // world
    streams = [list(s) for s in samplers]
    batches = [sorted(k for s in streams for k in s[b * each : (b + 1) * each]) for b in range(3)]
    assert batches == [[(4, i) for i in range(6 * b, 6 * b + 6)] for b in range(3)]
    assert all(a[-1] < b[0] for a, b in pairwise(batches))


def test_sampler_refuses_what_cannot_work():
    with pytest.raises(DataError, match="multiple of 3"):
        EpisodeIndexSampler(20, 4, 0, 3, training=True)
    with pytest.raises(DataError, match="larger than the 3"):
        EpisodeIndexSampler(3, 4, training=True)
    fixed = EpisodeIndexSampler(3, 4)
    fixed.set_epoch(9)
    assert list(fixed) == [(0, 0), (0, 1), (0, 2)]
