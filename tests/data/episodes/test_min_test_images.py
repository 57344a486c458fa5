"""``data.min_test_images``: which classes count in no mean; episodes stay as they are."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.conftest import SHARED
from tests.data.fabricate import SIZE, save_mask, two_class_mask, write_voc

from fss.data.episodes.lists import episodes_hash, record
from fss.data.episodes.options import EpisodeOptions, IndexOptions
from fss.data.episodes.streams import EpisodeStreams
from fss.data.sources.pascal import PascalSource
from fss.data.sources.shapes import ShapesSource
from fss.errors import DataError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ShapesSource:
    """Novel classes of fold 0, thing1 to thing5, are in 8 images each, but thing1 in 3 and thing2 in 5 of the list."""
    root = write_voc(tmp_path_factory.mktemp("few") / "voc")
    masks = [f"val_{k:04d}" for k in range(80)]
    for class_id, count in ((1, 3), (2, 5)):
        holding = [i for i in masks if class_id in np.unique(ShapesSource(root).mask(i))]
        assert len(holding) == 8
        for image in holding[count:]:
            mask = ShapesSource(root).mask(image).copy()
            mask[mask == class_id] = 20
            save_mask(root / "SegmentationClassAug" / f"{image}.png", mask)
    return ShapesSource(root)


def streams(source: ShapesSource, least: int | None, **options: Any) -> EpisodeStreams:
    episodes = EpisodeOptions(test_episodes=20, min_test_images=least, **options)
    return EpisodeStreams(source, 0, index=IndexOptions(small_classes="drop"), episodes=episodes, progress=False)


def test_classes_are_counted_on_the_list(source: ShapesSource) -> None:
    assert streams(source, None).too_small("test") == {}
    assert streams(source, 3).too_small("test") == {}
    assert streams(source, 4).too_small("test") == {"thing1": 3}
    assert streams(source, 8).too_small("test") == streams(source, 8).too_small("val") == {"thing1": 3, "thing2": 5}


def test_a_class_that_is_not_drawn_at_all_is_named_too(source: ShapesSource) -> None:
    found = streams(source, 6, test_shot=4)
    assert list(found.named("test")) == [2, 3, 4, 5]
    assert found.too_small("test") == {"thing1": 3, "thing2": 5}


def test_episodes_are_those_without_the_option(source: ShapesSource) -> None:
    with_it, without = (streams(source, least).test for least in (8, None))
    assert episodes_hash(record(with_it)) == episodes_hash(record(without))
    assert 1 in {draw.class_id for draw in record(with_it)}


def test_validation_on_base_classes_counts_those(source: ShapesSource) -> None:
    """Only images without a novel class are used there."""
    found = streams(source, 8, selection="base")
    names = {c: f"thing{c}" for c in range(6, 21)}
    counts = {names[c]: len(found.base_val_index.per_class[c]) for c in found.base_val_index.class_ids}
    assert found.too_small("val") == {n: c for n, c in counts.items() if c < 8} != {}
    assert found.too_small("test") == {"thing1": 3, "thing2": 5}


def test_generalised_tests_count_every_pixel_and_base_classes(source: ShapesSource, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    small = two_class_mask(7, 8, SIZE)
    small[0, 0] = 1  # far below min_area
    save_mask(root / "SegmentationClassAug" / "val_0000.png", small)
    (root / "ImageSets/FewShot/val.txt").write_text("".join(f"val_{k:04d}\n" for k in range(30)))
    table = {c: sum(c in ShapesSource(root).mask(f"val_{k:04d}") for k in range(30)) for c in range(1, 21)}
    found = streams(ShapesSource(root), 3, task="generalised").too_small("test")
    assert found == {f"thing{c}": n for c, n in table.items() if n < 3}
    assert any(c > 5 for c, n in table.items() if n < 3)


def test_no_class_left_is_an_error(source: ShapesSource) -> None:
    with pytest.raises(DataError, match=r"min_test_images=9 leaves no novel class of fold 0.*thing1 \(3\).*Lower it"):
        streams(source, 9).too_small("test")
    with pytest.raises(DataError, match=r"min_test_images=60 leaves no base class.*of the validation"):
        streams(source, 60, selection="base").too_small("val")


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "ten"])
def test_only_whole_numbers_are_taken(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"min_test_images=.*whole number from 1 up"):
        EpisodeOptions(min_test_images=wrong)


def test_real_masks_of_small_photographs(tmp_path: Path) -> None:
    """The counts are those of the folder's README, taken there by other means."""
    folder = SHARED / "data" / "pascal_small"
    if not folder.is_dir():
        pytest.skip(f"the small photographs are not at {folder}")
    with tarfile.open(folder / "SegmentationClassAug.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    lists = tmp_path / "ImageSets" / "FewShot"
    lists.mkdir(parents=True)
    for name in ("train.txt", "val.txt"):
        (lists / name).write_bytes((folder / name).read_bytes())
    found = {}
    for fold, least in ((1, 10), (2, 10), (3, 10), (2, 80)):
        options = EpisodeOptions(min_test_images=least)
        index = IndexOptions(min_area=537, small_classes="drop")
        streams = EpisodeStreams(PascalSource(tmp_path), fold, index=index, episodes=options, progress=False)
        found[fold, least] = streams.too_small("test")
    assert found == {
        (1, 10): {"bus": 1, "car": 5},
        (2, 10): {"diningtable": 3, "motorbike": 3},
        (3, 10): {"pottedplant": 5, "train": 0, "tvmonitor": 3},
        (2, 80): {"diningtable": 3, "horse": 76, "motorbike": 3},
    }
    empty = EpisodeStreams(
        PascalSource(tmp_path), 0, index=IndexOptions(min_area=537), episodes=EpisodeOptions(min_test_images=10),
        progress=False,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"no novel class of fold 0.*aeroplane \(0\), bicycle \(1\).*bottle \(3\)"):
        empty.too_small("test")
