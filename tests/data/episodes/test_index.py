import json
import shutil

import numpy as np
import pytest
from tests.data.fabricate import save_mask, two_class_mask, write_voc

from fss.data.episodes import areas
from fss.data.episodes.areas import AreaTable, area_table
from fss.data.episodes.index import class_index, without_small_classes
from fss.data.episodes.options import IndexOptions
from fss.data.episodes.streams import EpisodeStreams
from fss.data.reading.derived_files import cache_dir
from fss.data.sources.pascal import PascalSource
from fss.data.sources.shapes import ShapesSource
from fss.errors import DataError

# protocol A.1: images and per-class counts with the trick, images without it, val images
COUNTS = {
    0: (4208, "216 459 540 486 154 205 593 249 250 1441 193 168 264 286 245", 4760, 364, "81 63 89 61 71"),
    1: (3726, "296 206 346 215 187 106 550 237 224 1386 139 168 180 276 190", 4588, 445, "70 100 118 110 69"),
    2: (2752, "286 107 334 152 103 128 287 493 228 129 125 134 144 215 179", 4097, 592, "73 125 76 74 386"),
    3: (4510, "307 229 350 226 192 222 496 506 344 155 217 562 249 255 1522", 5108, 336, "63 53 90 82 69"),
}
NO_TRICK = "307 246 351 230 223 225 506 555 564 157 293 613 252 261 1856 222 174 292 289 287"


@pytest.fixture(scope="module")
def real(pascal_dir, pascal_masks):
    root = pascal_masks.parent
    return PascalSource(root, pascal_dir / "train.txt", pascal_dir / "val.txt")


@pytest.mark.parametrize(
    ("split", "rule", "file"),
    [("train", "drop", "train_drop_novel"), ("train", "keep", "train_keep_novel"), ("val", "drop", "val_drop_novel")],
)
def test_fold_0_equals_the_expected_files(real, pascal_dir, split, rule, file):
    expected = json.loads((pascal_dir / f"expected_fold0_{file}.json").read_text())
    streams = EpisodeStreams(real, 0, index=IndexOptions(novel_images=rule))
    index = streams.train_index if split == "train" else streams.test_index
    assert list(index.images) == expected["images"]
    assert {str(c): list(ids) for c, ids in index.per_class.items()} == expected["per_class"]


def test_counts_of_all_folds(real):
    for fold, (drop, drop_counts, keep, val, val_counts) in COUNTS.items():
        streams = EpisodeStreams(real, fold)
        assert len(streams.train_index.images) == drop
        assert _counts(streams.train_index) == drop_counts
        assert len(streams.test_index.images) == val
        assert _counts(streams.test_index) == val_counts
        kept = EpisodeStreams(real, fold, index=IndexOptions(novel_images="keep")).train_index
        assert len(kept.images) == keep
        wanted = [n for c, n in enumerate(NO_TRICK.split(), start=1) if c in streams.classes.base]
        assert _counts(kept) == " ".join(wanted)


def _counts(index):
    return " ".join(str(len(v)) for v in index.per_class.values())


def _table():
    return AreaTable(
        ("a", "b", "c", "d"), (1, 2, 3), np.array([[2048, 5, 0], [0, 9000, 1], [2047, 0, 0], [3000, 0, 0]])
    )


def test_rules_by_hand():
    index = class_index(_table(), (2, 1), ())
    assert index.images == ("a", "b", "d")
    assert index.per_class == {1: ("a", "d"), 2: ("b",)}
    assert index.present.tolist() == [[True, True], [False, True], [True, False]]
    assert class_index(_table(), (1, 2), (3,)).images == ("a", "d")
    assert class_index(_table(), (1, 2), (), min_area=5).per_class[2] == ("a", "b")


def test_small_classes(caplog):
    index = class_index(_table(), (1, 2), ())
    names = {1: "cat", 2: "dog", 3: "cow"}
    with pytest.raises(DataError, match=r"dog \(1\).*small_classes=drop"):
        without_small_classes(index, 1, "error", names)
    smaller = without_small_classes(index, 1, "drop", names)
    assert "dog (1)" in caplog.text
    assert smaller.class_ids == (1,)
    assert smaller.images == ("a", "d")
    assert smaller.present.tolist() == [[True], [True]]
    with pytest.raises(DataError, match="No class is left"):
        without_small_classes(index, 5, "drop", names)


def test_table_is_reused_for_a_copy_and_rebuilt_on_change(tmp_path, monkeypatch):
    root = write_voc(tmp_path / "one", per_split=4)
    first = area_table(ShapesSource(root), "train", progress=False)
    measure = areas._measure
    calls = []
    monkeypatch.setattr(areas, "_measure", lambda *a: calls.append(1) or measure(*a))
    shutil.copytree(root, tmp_path / "two")
    copy = area_table(ShapesSource(tmp_path / "two"), "train", progress=False)
    assert not calls
    assert np.array_equal(first.areas, copy.areas)
    save_mask(root / "SegmentationClassAug" / "train_0000.png", two_class_mask(7, 9))
    changed = area_table(ShapesSource(root), "train", progress=False)
    assert calls
    assert changed.areas[0, 6] > 2000
    assert changed.areas[0, 0] == 0


def test_damaged_cache_is_rebuilt(tmp_path):
    source = ShapesSource(write_voc(tmp_path / "one", per_split=4))
    first = area_table(source, "train", progress=False)
    (stored,) = cache_dir("index").iterdir()
    for content in (b"", b"PK rubbish", stored.read_bytes()[:200]):
        stored.write_bytes(content)
        assert np.array_equal(area_table(source, "train", progress=False).areas, first.areas)
    for memo in cache_dir("fingerprints").iterdir():
        memo.write_bytes(b"\xff\x00")
    assert np.array_equal(area_table(source, "train", progress=False).areas, first.areas)


def test_foreign_values_are_named(tmp_path):
    source = ShapesSource(write_voc(tmp_path / "one", per_split=4))
    save_mask(tmp_path / "one" / "SegmentationClassAug" / "train_0002.png", two_class_mask(21, 3))
    with pytest.raises(DataError, match=r"train_0002\.png.*\[21\].*1\.\.20"):
        area_table(source, "train", progress=False)


def test_missing_masks_are_named(tmp_path):
    source = ShapesSource(write_voc(tmp_path / "one", per_split=4))
    source.mask_path("train_0001").unlink()
    with pytest.raises(DataError, match=r"1 of 4.*train_0001"):
        area_table(source, "train", progress=False)


@pytest.mark.parametrize("wrong", [{"novel_images": "remove"}, {"small_classes": "skip"}, {"min_area": 0}])
def test_wrong_options(wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        IndexOptions(**wrong)
