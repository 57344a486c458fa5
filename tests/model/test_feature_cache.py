"""What is cached changes no episode's counts, is computed once, and stays within its limit."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from tests.methods.fakes import Recorder, SupportSign, episode, tiny
from tests.model.episodes import CLASSES, IMAGES, Stream, balance, build, counted, module, rows
from torch import Tensor

from fss.methods.separable import EncodedEpisode, SeparableHead
from fss.model.local_stage import STRIPS
from fss.model.map_cache import MapCache, Maps
from fss.model.segmenter import FewShotSegmenter
from fss.types import EpisodeFeatures, FeatureSpec

HEADS = ["baseline", "pfenet", "bam"]
PLENTY = 1 << 30
TIGHT = 200_000  # a few images' maps


@pytest.mark.parametrize("shot", [1, 5])
@pytest.mark.parametrize("name", HEADS)
def test_counts_of_every_episode_are_equal(name: str, shot: int) -> None:
    # In double precision: in single, kernels chosen by batch size move scores by 1e-7, and a tie may fall either way.
    stream, tested = Stream(shot, dtype=torch.float64), module(build(name, shot, torch.float64))
    balance(tested.model, stream)
    plain = rows(tested, stream)
    assert len(plain) == 12
    assert len(set(plain[:, 4].tolist())) > 6, "the answers must differ for the comparison to mean something"
    for limit, size in ((PLENTY, 1), (PLENTY, 3), (TIGHT, 8), (TIGHT, 1), (1, 3)):
        tested.model.cache_features(limit)
        assert torch.equal(rows(tested, stream, size), plain), (limit, size)
    tested.model.cache_features(None)
    assert torch.equal(rows(tested, stream, 8), plain), "heads answer each episode by itself"


@pytest.mark.parametrize("name", HEADS)
def test_counts_in_single_precision_differ_by_ties_at_most(name: str) -> None:
    stream, tested = Stream(1), module(build(name, 1))
    balance(tested.model, stream)
    plain = rows(tested, stream)
    tested.model.cache_features(PLENTY)
    ours = rows(tested, stream, 3)
    assert int((ours - plain).abs().max()) <= 3, "pixels of 3250"


@pytest.mark.parametrize("name", HEADS)
def test_what_lies_far_from_a_mask_is_not_computed_and_not_missed(name: str) -> None:
    stream = Stream(1, count=6, dtype=torch.float64, size=233)
    tested = module(build(name, 1, torch.float64))
    balance(tested.model, stream)
    seen: list[int] = []
    block = tested.model.backbone.stage(4)[0]
    forward = block.forward

    def counted_forward(x: Tensor) -> Tensor:  # a hook would keep the stage whole
        if x[0, 0].numel() not in {rows * columns for rows, columns in STRIPS}:
            seen.append(x.shape[0] * x[0, 0].numel())
        return forward(x)

    block.forward = counted_forward
    plain = rows(tested, stream)
    assert set(seen) == {2 * 30 * 30}, "query and support"
    seen.clear()
    tested.model.cache_features(PLENTY)
    assert torch.equal(rows(tested, stream), plain)
    queries, supports = {q for _, q, _ in stream.draws}, {(c, *s) for c, _, s in stream.draws}
    assert len(seen) == len(queries) + len(supports)
    assert seen.count(30 * 30) == len(queries)
    assert max(n for n in seen if n != 30 * 30) < 0.8 * 30 * 30


@pytest.mark.parametrize("shot", [1, 3])
@pytest.mark.parametrize("name", HEADS)
def test_heads_answer_from_parts_as_from_maps(name: str, shot: int) -> None:
    model, (stream, g) = build(name, shot, torch.float64), (Stream(shot, 3), torch.Generator().manual_seed(1))
    head, episode = model.head, stream.batches(3)[0]
    assert isinstance(head, SeparableHead)
    channels = dict(enumerate(model.backbone.channels))
    sizes = {2: (9, 11), 3: (9, 11), 4: (9, 11)}
    maps = {i: torch.randn(3, 1 + shot, channels[i], *sizes[i], generator=g, dtype=torch.float64) for i in (2, 3, 4)}
    extras = {"base_logits": torch.randn(3, 5, 9, 11, generator=g, dtype=torch.float64)} if name == "bam" else {}
    with torch.no_grad():
        features = EpisodeFeatures(
            {i: m[:, 0] for i, m in maps.items()}, {i: m[:, 1:] for i, m in maps.items()}, episode.support_labels,
            extras=extras,
        )  # fmt: skip
        queries = [head.encode_query({i: m[b, :1] for i, m in maps.items()}) for b in range(3)]
        labels = episode.support_labels
        supports = [
            [
                head.encode_support({i: m[b, 1 + k, None] for i, m in maps.items()}, labels[b, k, None])
                for k in range(shot)
            ]
            for b in range(3)
        ]
        expected, got = head(features), head.forward_encoded(EncodedEpisode(queries, supports, extras))
    assert float(expected.logits.std()) > 1e-3
    torch.testing.assert_close(got.logits, expected.logits, rtol=0, atol=1e-12)
    assert [a.name for a in got.aux_logits] == [a.name for a in expected.aux_logits]


@pytest.mark.parametrize("name", HEADS)
def test_parts_own_their_memory_and_a_masked_support_is_narrow(name: str) -> None:
    stream, model = Stream(1, count=8), build(name, 1)
    model.cache_features(PLENTY)
    assert model._cache is not None
    with torch.inference_mode():
        for batch in stream.batches(2):
            model.run_episode(batch)
    kept = model._cache.cache
    for maps in kept.values():
        for part in maps.encoding.values():
            assert part.untyped_storage().nbytes() == part.numel() * part.element_size()
    positions = 9 * 9 * model.backbone.channels[4]
    assert {key[0] for key in kept} >= {"whole", "query", "masked"}
    assert all(m.encoding["object"].numel() < 0.6 * positions for key, m in kept.items() if key[0] == "masked")


@pytest.mark.parametrize("name", HEADS)
def test_outputs_are_equal_in_double_precision(name: str) -> None:
    stream, model = Stream(5, dtype=torch.float64), build(name, 5, torch.float64)
    with torch.inference_mode():
        plain = [model.run_episode(b) for b in stream.batches(1)]
        model.cache_features(PLENTY)
        ours = [model.run_episode(b) for b in stream.batches(4)]
    expected = torch.cat([o.logits for o in plain])
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(torch.cat([o.logits for o in ours]), expected, rtol=0, atol=1e-10)
    for key in plain[0].branch_logits:
        got = torch.cat([o.branch_logits[key] for o in ours])
        torch.testing.assert_close(got, torch.cat([o.branch_logits[key] for o in plain]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1, 5])
def test_every_image_and_every_masked_support_is_computed_once(size: int) -> None:
    stream, model = Stream(5, count=20), build("baseline", 5)
    seen = counted(model)
    model.cache_features(PLENTY)
    with torch.inference_mode():
        for batch in stream.batches(size):
            model.run_episode(batch)
    masked = {(s, c) for c, _, supports in stream.draws for s in supports}
    queries = {q for _, q, _ in stream.draws}
    assert len(masked) == IMAGES * CLASSES
    assert seen == {0: IMAGES, 1: IMAGES, 2: IMAGES, 3: IMAGES, 4: len(queries) + len(masked)}


def test_a_base_learner_sees_every_query_once() -> None:
    stream, model = Stream(1, count=20), build("bam", 1)
    assert model.companion is not None
    calls: list[int] = []
    model.companion.head.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    model.cache_features(PLENTY)
    with torch.inference_mode():
        for batch in stream.batches(3):
            model.run_episode(batch)
    assert sum(calls) == len({q for _, q, _ in stream.draws})


SPECS = [
    FeatureSpec(stages=(2, 3)),
    FeatureSpec(stages=(4,), support_view="masked_before_stage4"),
    FeatureSpec(stages=(1, 3), support_view="masked_before_stage4"),
    FeatureSpec(stages=(2, 4), taps=(3, 4)),
    FeatureSpec(stages=(3,), taps=(2, 4), support_view="masked_before_stage4"),
    FeatureSpec(stages=(3, 4), taps=(4,), support_view="masked_image"),
]


@pytest.mark.parametrize("limit", [PLENTY, 1])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_declaration_is_served(spec: FeatureSpec, limit: int) -> None:
    stream, head = Stream(2, count=6, dtype=torch.float64), Recorder(spec)
    model = FewShotSegmenter(tiny(4), head).double().eval()
    seen = counted(model)
    with torch.inference_mode():
        for batch in stream.batches(3):
            model.run_episode(batch)
        before = dict(seen)
        model.cache_features(limit)
        for batch in stream.batches(3):
            model.run_episode(batch)
    plain, ours = head.calls[:2], head.calls[2:]
    for a, b in zip(plain, ours, strict=True):
        for x, y in zip(_tensors(a), _tensors(b), strict=True):
            assert x.shape == y.shape
            torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    assert seen[0] - before[0] < before[0], "something was computed once that was twice before"


def _tensors(features: EpisodeFeatures) -> list[Tensor]:
    sides = [features.query, features.support]
    found = [side[i] for side in sides for i in sorted(side)]
    for taps in (features.query_taps, features.support_taps):
        found += [t for i in sorted(taps) for t in taps[i]]
    return [*found, features.support_labels]


def test_votes_are_the_same() -> None:
    stream, model = Stream(3), FewShotSegmenter(tiny(4), SupportSign()).eval()
    with torch.inference_mode():
        plain = torch.cat([model.run_episode(b).logits for b in stream.batches(1)])
        model.cache_features(PLENTY)
        assert torch.equal(torch.cat([model.run_episode(b).logits for b in stream.batches(4)]), plain)


def test_nothing_is_cached_where_maps_depend_on_more_than_the_image() -> None:
    stream, model = Stream(1, count=4), build("baseline", 1)
    seen = counted(model)
    model.cache_features(PLENTY)

    def passes() -> int:
        before = seen[0]
        for batch in stream.batches(4):
            model.run_episode(batch)
        return seen[0] - before

    assert passes() == 8, "with gradients recorded"
    with torch.no_grad():
        model.train()
        assert passes() == 8, "in training mode"
        model.eval()
        nameless = episode(2, 1)
        nameless.query_ids, nameless.support_ids = [], []
        before = seen[0]
        model.run_episode(nameless)
        assert seen[0] - before == 4, "without ids"
        assert passes() <= IMAGES


def test_a_new_pass_starts_with_nothing() -> None:
    stream, model = Stream(1, count=4), build("baseline", 1)
    with torch.no_grad():
        model.cache_features(PLENTY)
        old = model.run_episode(stream.batches(4)[0]).logits
        model.backbone.stage(0)[0].weight.mul_(1.5)
        model.cache_features(PLENTY)
        new = model.run_episode(stream.batches(4)[0]).logits
        model.cache_features(None)
        assert torch.allclose(new, model.run_episode(stream.batches(4)[0]).logits, atol=1e-5)
    assert not torch.allclose(new, old, atol=1e-4)


def maps(count: int) -> Maps:
    return Maps({0: torch.zeros(count)}, {1: [torch.zeros(count)]})


def test_the_limit_holds_and_the_oldest_goes_first() -> None:
    cache = MapCache(100)
    for name in "abc":
        cache.put(("whole", name), maps(4))  # 32 bytes each
        assert cache.currsize <= 100
    assert cache.get(("whole", "a")) is not None  # b is the oldest now
    cache.put(("whole", "d"), maps(4))
    assert cache.get(("whole", "b")) is None
    assert cache.get(("whole", "a")) is not None
    assert (cache.currsize, len(cache)) == (96, 3)
    cache.put(("whole", "a"), maps(2))
    assert cache.currsize == 80
    cache.put(("whole", "e"), maps(20))
    assert cache.get(("whole", "e")) is None, "larger than the limit"
    assert cache.currsize == 80


def test_maps_of_queries_make_room_before_all_others() -> None:
    cache = MapCache(100)
    cache.put(("whole", "a"), maps(4))
    cache.put(("query", "a"), maps(4))
    cache.put(("query", "b"), maps(4))
    cache.put(("masked", "a", "1"), maps(4))
    assert cache.get(("whole", "a")) is not None
    assert len(cache) == 3


@pytest.mark.parametrize("name", HEADS)
def test_memory_stays_below_the_limit_while_it_works(name: str) -> None:
    stream, model = Stream(5), build(name, 5)
    model.cache_features(TIGHT)
    assert model._cache is not None
    cache, held = model._cache.cache, []
    with torch.inference_mode():
        for batch in stream.batches(2):
            model.run_episode(batch)
            kept = [(m.stages.values(), *m.taps.values(), m.encoding.values()) for m in cache.values()]
            own = list(chain(*chain(*kept)))
            held.append(sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in own}.values()))
            assert held[-1] == cache.currsize
    assert 0 < max(held) <= TIGHT
    assert max(held) > TIGHT / 2
