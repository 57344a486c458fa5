"""The released stream: its seeds against torch and NumPy, its episodes against the released data set class."""

import json
import random
from itertools import islice

import numpy as np
import pytest
import torch
from tests.data.fabricate import write_voc
from typer.testing import CliRunner

from fss.cli.data import app
from fss.data.datamodule import FewShotDataModule
from fss.data.episodes.index import ClassIndex
from fss.data.episodes.lists import EpisodeList, record
from fss.data.episodes.options import EpisodeOptions, IndexOptions
from fss.data.episodes.release import BAM_TEST_SEEDS, ReleaseEpisodes, base_seeds
from fss.data.episodes.stateless import Draw, StatelessEpisodes
from fss.data.episodes.streams import EpisodeStreams
from fss.data.options import LoaderOptions
from fss.data.sources.pascal import PascalSource
from fss.data.sources.shapes import ShapesSource
from fss.errors import DataError
from fss.types import InputSpec

FIRST = {  # protocol D.1: class, query, support; 1 shot, seed 321
    0: "1 33 8_3926, 4 61 9_828, 2 129 7_5107, 5 346 7_5304, 4 529 9_469, 5 559 8_5812",
    1: "9 452 9_1299, 10 464 7_5547, 10 491 7_8722, 7 663 10_3231, 7 727 9_4455, 9 804 7_9068",
    2: "15 129 8_5245, 15 323 9_2042, 13 332 7_6364, 15 346 10_2137, 15 762 9_149, 13 783 8_1992",
    3: "19 42 8_2900, 19 123 10_1734, 17 175 7_2618, 20 187 7_3011, 18 452 9_4298, 20 559 8_3003",
}
FIVE = {  # supports of the first episode with 5 shots
    0: "8_3926 9_5189 8_4704 10_1024 10_5888",
    1: "9_1299 9_1775 7_1677 7_9068 10_3971",
    2: "8_5245 8_5738 7_1630 11_2532 11_438",
    3: "8_2900 9_2887 8_4212 9_3433 10_5727",
}


def _voc_id(short):
    year, number = short.split("_")
    return f"{2000 + int(year)}_{int(number):06d}"


def _draws(text):
    rows = [entry.split() for entry in text.split(", ")]
    return [Draw(int(c), _voc_id(f"7_{q}"), (_voc_id(s),)) for c, q, s in rows]


@pytest.fixture
def pascal(pascal_dir, pascal_masks):
    return PascalSource(pascal_masks.parent, pascal_dir / "train.txt", pascal_dir / "val.txt", pascal_masks)


@pytest.fixture
def index():
    """Twenty images of classes 3 and 7: the even ones hold 3, those from 5 on hold 7."""
    names = tuple(f"p{k}" for k in range(20))
    present = np.array([[k % 2 == 0 or k < 5, k >= 5] for k in range(20)])
    per_class = {3: tuple(n for n, p in zip(names, present, strict=True) if p[0]), 7: names[5:]}
    return ClassIndex((3, 7), names, per_class, present)


def _stream(source, fold, shot, **options):
    return EpisodeStreams(source, fold, shot, seed=9, episodes=EpisodeOptions(**{"sampler": "release", **options}))


@pytest.mark.parametrize("seed", [0, 1, 321, 2**32 - 1, 2**32 + 5])
def test_base_seeds_are_torch_s(seed):
    generator = torch.Generator().manual_seed(seed)
    expected = [int(torch.empty((), dtype=torch.int64).random_(generator=generator)) for _ in range(4)]
    assert list(islice(base_seeds(seed), 4)) == expected


def test_base_seeds_of_the_releases():
    assert list(islice(base_seeds(321), 3)) == [7119482877287995930, 1437229359153720095, 8847909884838522568]
    assert [next(base_seeds(s)) for s in BAM_TEST_SEEDS] == [
        1103786220883858366,
        8143421076996491956,
        4685089365426968971,
        7610654151900102729,
        7334870626377658727,
    ]


def test_bam_s_test_seeds_are_numpy_s():
    assert tuple(np.random.RandomState(123).randint(0, 1000, 5).tolist()) == BAM_TEST_SEEDS


def test_a_thousand_released_episodes(pascal, pascal_dir):
    expected = json.loads((pascal_dir / "expected_release_episodes_fold0_1shot.json").read_text())
    assert (expected["fold"], expected["shot"], expected["seed"], expected["workers"]) == (0, 1, 321, 8)
    drawn = record(_stream(pascal, 0, 1).test)
    assert len(drawn) == 1000
    assert [[d.class_id, d.query, list(d.supports)] for d in drawn] == expected["episodes"]


@pytest.mark.parametrize("fold", FIRST)
def test_first_released_episodes(pascal, fold):
    assert list(record(_stream(pascal, fold, 1).test, 6)) == _draws(FIRST[fold])
    first = _stream(pascal, fold, 5).test.draw(0, 0)
    assert first.supports == tuple(_voc_id(s) for s in FIVE[fold].split())


@pytest.mark.parametrize("shot", [1, 3])
def test_episodes_are_those_of_eight_worker_processes(index, shot):
    """Play the released loader: torch draws the base seed, every worker has its own ``random`` and its own items."""
    generator = torch.Generator().manual_seed(7)
    expected = []
    for _ in range(3):
        base = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
        of_pass: dict[int, Draw] = {}
        for worker in range(8):
            random.seed(base + worker)
            for row in range(worker, len(index.images), 8):
                of_pass[row] = _released_item(index, row, shot)
        expected += [of_pass[row] for row in range(len(index.images))]
    assert list(record(ReleaseEpisodes(index, shot, 7, 50))) == expected[:50]


def _released_item(index, row, shot):
    classes = [c for c, there in zip(index.class_ids, index.present[row], strict=True) if there]
    chosen = classes[random.randint(1, len(classes)) - 1]
    files, used = index.per_class[chosen], []
    for _ in range(shot):
        k = random.randint(1, len(files)) - 1
        file = index.images[row]
        while file == index.images[row] or k in used:
            k = random.randint(1, len(files)) - 1
            file = files[k]
        used.append(k)
    return Draw(chosen, index.images[row], tuple(files[k] for k in used))


def test_stops_at_the_count_and_the_epoch_does_not_matter(index):
    short, long = ReleaseEpisodes(index, 1, 321, 7), ReleaseEpisodes(index, 1, 321, 47)
    assert (len(short), len(long)) == (7, 47)
    assert short.episodes == long.episodes[:7]
    assert [d.query for d in long.episodes] == [*index.images * 3][:47]
    assert [long.draw(4, i) for i in range(47)] == list(long.episodes)
    assert long.episodes[:20] != long.episodes[20:40]
    assert long.class_ids == (3, 7)


def test_wrong_numbers_and_too_few_supports(index):
    for wrong in ((0, 1, 1), (1, -1, 1), (1, 1, 0)):
        with pytest.raises(DataError, match="not allowed"):
            ReleaseEpisodes(index, *wrong)
    with pytest.raises(DataError, match="shot=15 needs"):
        ReleaseEpisodes(index, 15, 1, 20)
    with pytest.raises(DataError, match=r"data\.min_area"):
        ReleaseEpisodes(ClassIndex((3,), (), {3: ()}, np.zeros((0, 1), bool)), 1, 1, 1)


def test_only_novel_episodes_are_drawn_as_released(voc):
    with pytest.raises(DataError, match="release, stateless"):
        _stream(voc, 0, 1, sampler="torch")
    streams = _stream(voc, 0, 1, test_episodes=12, val_episodes=5)
    assert isinstance(streams.train, StatelessEpisodes)
    assert record(streams.val) == record(streams.test)[:5]
    assert (streams.train.sampler, streams.val.sampler, streams.test.sampler) == ("stateless", "release", "release")
    base = _stream(voc, 0, 1, test_episodes=12, selection="base")
    plain = EpisodeStreams(voc, 0, 1, episodes=EpisodeOptions("base", 12))
    assert record(base.val) == record(plain.val)
    assert record(base.test) != record(plain.test)
    assert (base.val.sampler, base.test.sampler) == ("stateless", "release")


def test_validation_keeps_the_training_s_shot(voc):
    streams = _stream(voc, 0, 1, test_episodes=30, test_shot=3)
    assert [len(d.supports) for d in record(streams.val)] == [1] * 30
    assert [len(d.supports) for d in record(streams.test)] == [3] * 30
    assert record(streams.val) == record(_stream(voc, 0, 1, test_episodes=30).test)
    first = [d.supports[:1] for d in record(streams.test)]
    assert first != [d.supports for d in record(streams.val)]  # more shots do not extend fewer here


@pytest.mark.parametrize("workers", [0, 3])
def test_loaders_serve_the_list_whatever_their_number(voc, workers):
    options = EpisodeOptions(test_episodes=10, sampler="release")
    loading = LoaderOptions(test_batch_size=2, workers=workers, progress=False)
    data = FewShotDataModule(voc, InputSpec(), 0, 1, episodes=options, loader=loading)
    data.setup("test")
    seen = [pair for e in data.test_dataloader() for pair in zip(e.query_ids, e.support_ids, strict=True)]
    assert seen == [(d.query, list(d.supports)) for d in record(_stream(voc, 0, 1, test_episodes=10).test)]


def _run(*args):
    return CliRunner().invoke(app, ["episodes", "shapes", *map(str, args)])


def test_command_writes_a_list_that_replays_as_released(tmp_path):
    voc, out = ShapesSource(write_voc(tmp_path / "voc")), tmp_path / "e.json"
    result = _run("--sampler", "release", "--shot", 2, "--count", 30, "--root", voc.root, "--out", out)
    assert result.exit_code == 0, result.output
    loaded = EpisodeList.load(out)
    assert json.loads(out.read_text())["sampler"] == "release"
    index = IndexOptions(min_area=150)
    released = EpisodeOptions(test_episodes=30, sampler="release")
    assert loaded.episodes == record(EpisodeStreams(voc, 0, 2, index=index, episodes=released).test)
    replayed = EpisodeStreams(voc, 0, 2, index=index, episodes=EpisodeOptions(replay=out))
    assert replayed.test.sampler == "release"


@pytest.mark.parametrize("split", ["train", "val"])
def test_command_refuses_other_splits(voc, tmp_path, split):
    out = tmp_path / "e.json"
    result = _run("--sampler", "release", "--split", split, "--root", voc.root, "--out", out)
    assert result.exit_code == 2
    assert f"--sampler release with --split {split}" in result.output
    assert "--split test" in result.output
    assert not out.exists()
