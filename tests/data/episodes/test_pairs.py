"""The rules of HSNet's release: pairs in list order or drawn uniformly, one legacy generator, repeated supports."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fss.data.episodes.index import ClassIndex
from fss.data.episodes.options import EpisodeOptions, rule_names
from fss.data.episodes.pairs import PairEpisodes
from fss.data.episodes.release import ReleaseEpisodes
from fss.data.episodes.rules import rule
from fss.data.episodes.stateless import StatelessEpisodes
from fss.data.episodes.uniform import UniformEpisodes
from fss.errors import DataError

IMAGES = ("a", "b", "c", "d")
MEMBERS = {3: ("a", "c", "d"), 7: ("a", "b")}
PRESENT = np.array([[1, 1], [0, 1], [1, 0], [1, 0]], dtype=bool)
INDEX = ClassIndex((3, 7), IMAGES, MEMBERS, PRESENT)
PAIRS = [("a", 3), ("a", 7), ("b", 7), ("c", 3), ("d", 3)]


def drawn_again(random: np.random.RandomState, class_id: int, query: str, shot: int) -> tuple[str, ...]:
    chosen: list[str] = []
    while len(chosen) != shot:
        image = str(random.choice(MEMBERS[class_id], 1, replace=False)[0])
        if image != query:
            chosen.append(image)
    return tuple(chosen)


@pytest.mark.parametrize("shot", [1, 5])
def test_every_pair_in_turn(shot: int) -> None:
    episodes = PairEpisodes(INDEX, shot, seed=0, length=12)
    random = np.random.RandomState(0)
    assert len(episodes) == 12
    for i in range(12):
        draw = episodes.draw(3, i)
        assert (draw.query, draw.class_id) == PAIRS[i % 5]
        assert draw.supports == drawn_again(random, draw.class_id, draw.query, shot)


def test_class_query_and_supports_are_drawn() -> None:
    episodes, random = UniformEpisodes(INDEX, 2, seed=4, length=300), np.random.RandomState(4)
    for i in range(300):
        draw = episodes.draw(0, i)
        class_id = int(random.choice((3, 7), 1, replace=False)[0])
        query = str(random.choice(MEMBERS[class_id], 1, replace=False)[0])
        assert (draw.class_id, draw.query) == (class_id, query)
        assert draw.supports == drawn_again(random, class_id, query, 2)
    counts = Counter(episodes.draw(0, i).class_id for i in range(300))
    assert min(counts.values()) > 120


def test_supports_may_repeat_but_are_never_the_query() -> None:
    draws = [PairEpisodes(INDEX, 5, seed=1, length=50).draw(0, i) for i in range(50)]
    assert all(draw.query not in draw.supports for draw in draws)
    assert any(len(set(draw.supports)) < 5 for draw in draws)


def test_a_class_of_one_image() -> None:
    index = ClassIndex((3,), ("a",), {3: ("a",)}, np.ones((1, 1), dtype=bool))
    with pytest.raises(DataError, match="shot=1 needs 1 supports besides the query a"):
        PairEpisodes(index, 5, 0, 1)
    with pytest.raises(DataError, match="No image of the validation list"):
        PairEpisodes(ClassIndex((3,), (), {3: ()}, np.ones((0, 1), dtype=bool)), 1, 0, 1)


def test_rules_are_the_files_of_their_folder() -> None:
    assert rule_names() == ("pairs", "release", "stateless", "uniform")
    kinds = {
        "pairs": PairEpisodes,
        "release": ReleaseEpisodes,
        "stateless": StatelessEpisodes,
        "uniform": UniformEpisodes,
    }
    for name, kind in kinds.items():
        found = rule(name).novel(INDEX, 1, 0, 4)
        assert type(found) is kind
        assert (found.sampler, len(found)) == (name, 4)
    with pytest.raises(
        DataError, match=r"sampler='index' is not known: allowed are pairs, release, stateless, uniform\."
    ):
        rule("index")
    assert EpisodeOptions().sampler == "stateless"
