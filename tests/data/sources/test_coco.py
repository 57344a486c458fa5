import json
import pickle

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from tests.data.fabricate import SIZE, write_coco

from fss.data.reading import process_pool as pools
from fss.data.sources import coco, coco_masks
from fss.data.sources.coco import CocoSource
from fss.errors import DataError

CATEGORIES = {1: "person", 3: "car", 90: "toothbrush"}


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / "coco", CATEGORIES)


def _edit(root, split, change):
    path = root / "annotations" / f"instances_{split}2014.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_lists_ascend_and_leave_out_images_without_annotations(root):
    source = CocoSource(root, progress=False)
    assert source.ids("val") == [f"COCO_val2014_{500 + k:012d}" for k in range(1, 6)]
    assert source.image(source.ids("train")[0]).shape == (*SIZE, 3)
    assert not list(root.rglob("*.png"))
    assert len(pickle.dumps(source)) < 5000


def test_later_instances_overwrite_and_crowds_are_skipped(root):
    _edit(root, "val", lambda c: [a.update(iscrowd=1) for a in c["annotations"] if a["category_id"] == 3])
    source = CocoSource(root, progress=False)
    source.prepare("val")
    mask = source.mask("COCO_val2014_000000000503")
    assert set(np.unique(mask)) == {0, 1, 80}
    assert mask[12, 12] == 1
    assert mask[55, 55] == 80  # person and toothbrush overlap here, toothbrush comes later
    assert (mask == 1).sum() + (mask == 80).sum() == 2 * 2500 - 10 * 30  # two squares that overlap


def test_real_masks_equal_pycocotools(coco128):
    source = CocoSource(coco128, progress=False)
    source.prepare("val")
    api = COCO(str(coco128 / "annotations" / "instances_val2014.json"))
    ids = source.ids("val")
    assert [int(i) for i in ids] == sorted({a["image_id"] for a in api.anns.values()})
    order = {c: k for k, c in enumerate(sorted(api.cats), start=1)}
    for image_id in ids[:8]:
        expected = np.zeros(source.image(image_id).shape[:2], np.uint8)
        for annotation in api.imgToAnns[int(image_id)]:
            expected[api.annToMask(annotation) == 1] = order[annotation["category_id"]]
        assert np.array_equal(source.mask(image_id), expected)


def test_first_polygons_of_real_instances(coco128):
    """RePRI's masks: per instance, in file order, the first polygon truncated to whole numbers and filled."""
    source = CocoSource(coco128, progress=False, mask_rule="first_polygon")
    api = COCO(str(coco128 / "annotations" / "instances_val2014.json"))
    order = {c: k for k, c in enumerate(sorted(api.cats), start=1)}
    full = CocoSource(coco128, progress=False)
    full.prepare("val")
    different = 0
    for image_id in source.ids("val"):
        expected = np.zeros(source.image(image_id).shape[:2], np.uint8)
        for annotation in api.imgToAnns[int(image_id)]:
            if annotation["iscrowd"] or isinstance(annotation["segmentation"], dict):
                continue
            corners = np.array(annotation["segmentation"][0]).reshape(-1, 2).astype(int)
            cv2.fillPoly(expected, [corners], order[annotation["category_id"]])
        assert np.array_equal(source.mask(image_id), expected)
        different += not np.array_equal(full.mask(image_id), expected)
    assert different > 20, "truncated corners move outlines in nearly every image"


def test_run_lengths_are_understood(root):
    counts = [0, SIZE[0] * 2, SIZE[0] * (SIZE[1] - 2)]
    rle = {"size": list(SIZE), "counts": counts}
    _edit(root, "val", lambda c: [a.update(segmentation=rle) for a in c["annotations"]])
    source = CocoSource(root, progress=False)
    source.prepare("val")
    drawn = source.mask("COCO_val2014_000000000502")
    assert (drawn[:, :2] == 80).all()
    assert (drawn[:, 2:] == 0).all()


def test_rasterised_once_and_continued(root, monkeypatch):
    source = CocoSource(root, progress=False)
    source.prepare("val")
    folder = source.mask_path("COCO_val2014_000000000501").parent
    written = []
    write = coco_masks._write
    monkeypatch.setattr(coco_masks, "_write", lambda task: written.append(task.target.name) or write(task))
    CocoSource(root, progress=False).prepare("val")
    assert not written
    (folder / "COCO_val2014_000000000501.png").unlink()
    CocoSource(root, progress=False).prepare("val")
    assert written == ["COCO_val2014_000000000501.png"]
    _edit(root, "val", lambda c: c["annotations"].pop())
    CocoSource(root, progress=False).prepare("val")
    assert len(written) > 4


def test_processes_draw_the_same(root, tmp_path, monkeypatch):
    instances = root / "annotations" / "instances_val2014.json"
    coco_masks.rasterise(instances, tmp_path / "a", progress=False)
    monkeypatch.setattr(pools, "FEW", 0)
    assert coco_masks.rasterise(instances, tmp_path / "b", progress=False) == 5
    for file in (tmp_path / "a").glob("*.png"):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_given_masks_are_used(root):
    source = CocoSource(root, progress=False)
    source.prepare("val")
    folder = root / "annotations" / "val2014"
    source.mask_path("COCO_val2014_000000000501").parent.rename(folder)
    given = CocoSource(root)
    assert given.mask_path("COCO_val2014_000000000501").parent == folder
    assert len(given.ids("val")) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annotations"), "annotations"),
        (lambda c: c["annotations"][0].update(category_id=12), "12"),
        (lambda c: c["annotations"][0].update(image_id=7), "7"),
        (lambda c: c["annotations"][0].update(segmentation="x"), "COCO_val2014_000000000505"),
    ],
)
def test_damaged_instances(root, change, message):
    _edit(root, "val", change)
    with pytest.raises(DataError, match=message):
        CocoSource(root, progress=False).prepare("val")


def test_missing_parts(root, tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*instances_train2014"):
        CocoSource(tmp_path / "nowhere").check("train")
    (root / "annotations" / "instances_val2014.json").unlink()
    with pytest.raises(DataError, match="neither"):
        CocoSource(root).check("val")
    with pytest.raises(DataError, match="scheme"):
        CocoSource(root, "other")
    assert coco._number("COCO_val2014_000000000042") < coco._number("COCO_val2014_000000000100")
