"""Generalised episodes: every image is a query, and its class follows the released rule."""

from __future__ import annotations

import numpy as np
import pytest

from fss.data.episodes.areas import AreaTable
from fss.data.episodes.generalised import GeneralisedEpisodes
from fss.data.sources.folds import FoldClasses
from fss.errors import DataError

CLASSES = FoldClasses(0, base=(1, 2), novel=(3, 4))
# rows: base alone; novel 3 alone; base and novel 4; background; novel 3 and 4, one pixel each; novel 4 alone
AREAS = np.array([[9, 0, 0, 0], [0, 0, 9, 0], [0, 5, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 3]])
TABLE = AreaTable(tuple("abcdef"), (1, 2, 3, 4), AREAS)


def drawn(row: int, seeds: int = 60, shot: int = 1) -> set[int]:
    return {GeneralisedEpisodes(TABLE, CLASSES, shot, seed, 20).draw(0, row).class_id for seed in range(seeds)}


def test_the_class_follows_from_the_image() -> None:
    assert [drawn(row) for row in range(6)] == [{3, 4}, {3}, {3, 4}, {3, 4}, {3, 4}, {4}]


def test_queries_follow_the_list_again_and_again() -> None:
    draws = GeneralisedEpisodes(TABLE, CLASSES, 1, 0, 14)
    assert [draws.draw(0, i).query for i in range(len(draws))] == list("abcdefabcdefab")


def test_supports_hold_the_class_and_differ_from_the_query() -> None:
    holds = {3: set("be"), 4: set("cef")}
    for seed in range(20):
        draws = GeneralisedEpisodes(TABLE, CLASSES, 1, seed, 12)
        for i in range(12):
            draw = draws.draw(seed, i)
            assert set(draw.supports) <= holds[draw.class_id] - {draw.query}
            assert draw == draws.draw(seed + 1, i)


def test_too_few_images() -> None:
    with pytest.raises(DataError, match=r"novel classes \[3\].*lower shot"):
        GeneralisedEpisodes(TABLE, CLASSES, 2, 0, 10)
