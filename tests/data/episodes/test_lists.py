import json

import pytest

from fss.data.episodes.lists import EpisodeList, episodes_hash, record
from fss.data.episodes.options import EpisodeOptions
from fss.data.episodes.stateless import Draw
from fss.data.episodes.streams import EpisodeStreams
from fss.errors import DataError

EPISODES = (Draw(1, "a", ("b", "c")), Draw(2, "d", ("e", "a")))


def _list(**changes):
    values = {"data": "shapes", "fold": 0, "shot": 2, "split": "test", "seed": 5, "sampler": "stateless"}
    return EpisodeList(**(values | {"episodes": EPISODES} | changes))


def test_round_trip(tmp_path):
    _list().save(tmp_path / "e.json")
    raw = json.loads((tmp_path / "e.json").read_text())
    assert raw["episodes"][0] == {"class": 1, "query": "a", "supports": ["b", "c"]}
    assert (raw["data"], raw["fold"], raw["shot"], raw["split"], raw["seed"]) == ("shapes", 0, 2, "test", 5)
    assert EpisodeList.load(tmp_path / "e.json") == _list()


def test_hash_is_pinned_and_sees_class_query_supports_and_order():
    known = episodes_hash(EPISODES)
    assert known == "78aca9a65dcb494bd07ca76cb954eda17e7e3eb758e62063689a03e46ad2e11d"
    a, b = EPISODES
    for other in ((b, a), (a,), (Draw(3, *_rest(a)), b), (Draw(1, "a", ("c", "b")), b), (Draw(1, "x", ("b", "c")), b)):
        assert episodes_hash(other) != known


def _rest(draw):
    return draw.query, draw.supports


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting"),
        ("[]", "TypeError"),
        ('{"data": "shapes"}', "shot"),
        ('{"data":"s","fold":0,"shot":1,"seed":0,"episodes":[]}', "no episode"),
        ('{"data":"s","fold":0,"shot":2,"seed":0,"episodes":[{"class":1,"query":"a","supports":["b"]}]}', "1 supports"),
        (
            '{"data":"s","fold":0,"shot":1,"seed":0,"hash":"x","episodes":[{"class":1,"query":"a","supports":["b"]}]}',
            "hash",
        ),
    ],
)
def test_damaged_lists(tmp_path, content, message):
    (tmp_path / "e.json").write_text(content)
    with pytest.raises(DataError, match=rf"e\.json.*{message}"):
        EpisodeList.load(tmp_path / "e.json")


def _export(voc, path, **changes):
    drawn = record(EpisodeStreams(voc, 0, 1, episodes=EpisodeOptions(test_seed=9)).test, 12)
    _list(**({"shot": 1, "episodes": drawn} | changes)).save(path)
    return drawn


def test_replay_gives_the_same_episodes_and_hash(voc, tmp_path):
    drawn = _export(voc, tmp_path / "e.json")
    streams = EpisodeStreams(voc, 0, 1, seed=1, episodes=EpisodeOptions(replay=tmp_path / "e.json"))
    assert record(streams.test) == drawn
    assert episodes_hash(record(streams.test)) == episodes_hash(drawn)
    assert streams.val is streams.test
    first = EpisodeStreams(voc, 0, 1, episodes=EpisodeOptions(val_episodes=3, replay=tmp_path / "e.json"))
    assert record(first.val) == drawn[:3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "pascal"}, "data set pascal"),
        ({"fold": 1}, "fold 1"),
        ({"episodes": (Draw(20, "val_0000", ("val_0001",)),)}, "classes"),
        ({"episodes": (Draw(1, "other", ("val_0001",)),)}, "first other"),
    ],
)
def test_replay_of_a_foreign_list(voc, tmp_path, changes, message):
    _export(voc, tmp_path / "e.json", **changes)
    with pytest.raises(DataError, match=message):
        _ = EpisodeStreams(voc, 0, 1, episodes=EpisodeOptions(replay=tmp_path / "e.json")).test


def test_replay_with_another_shot(voc, tmp_path):
    _export(voc, tmp_path / "e.json")
    with pytest.raises(DataError, match="shot 1, this run has shot 2"):
        _ = EpisodeStreams(voc, 0, 2, episodes=EpisodeOptions(replay=tmp_path / "e.json")).test
