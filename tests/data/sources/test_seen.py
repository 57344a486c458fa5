"""Classes by their names in different data sets, and images that two lists share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.fabricate import write_voc

from fss.data.sources.coco import CocoSource
from fss.data.sources.folds import COCO_CLASSES, PASCAL_CLASSES, coco_fold
from fss.data.sources.pascal import PascalSource
from fss.data.sources.seen import LEAKED, facts_of, lists_known, refuse_leaks, same_class, seen_classes
from fss.errors import DataError


def test_every_class_of_pascal_is_one_of_coco() -> None:
    coco = {same_class(name): name for name in COCO_CLASSES.values()}
    assert len(coco) == 80, "no two classes of COCO become one"
    found = {name: coco[same_class(name)] for name in PASCAL_CLASSES.values()}
    assert len(set(found.values())) == 20
    renamed = {a: b for a, b in found.items() if a != b}
    assert renamed == {
        "aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle",
        "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["TV monitor", "tv_monitor", "TVMonitor", "television"])
def test_other_ways_to_write_a_name(name: str) -> None:
    assert same_class(name) == same_class("tv")


def test_pascal_after_coco() -> None:
    """COCO's fold 0 holds out person, airplane, boat, dog, chair and dining table of PASCAL's classes."""
    trained = [COCO_CLASSES[i] for i in coco_fold(0).base]
    unseen = [n for i, n in PASCAL_CLASSES.items() if i not in seen_classes(PASCAL_CLASSES, trained)]
    assert unseen == ["aeroplane", "boat", "chair", "diningtable", "dog", "person"]


def test_the_default_lists_share_nothing(tmp_path: Path) -> None:
    source = PascalSource(write_voc(tmp_path / "voc"))
    assert refuse_leaks(source, "refuse") == ()
    assert LEAKED not in facts_of(source)


def test_shared_images_are_refused_unless_allowed(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    lists = root / "ImageSets" / "FewShot"
    mixed = tmp_path / "mixed.txt"
    mixed.write_text((lists / "train.txt").read_text() + "\n".join((lists / "val.txt").read_text().split()[4:20]))
    source = PascalSource(root, train_list=mixed)
    with pytest.raises(DataError, match=r"16 of 80 images .* \(first val_0004\).*leaks=allow"):
        refuse_leaks(source, "refuse")
    assert refuse_leaks(source, "allow") == (
        "leaks=allow: 16 of 80 images of the test's list are in the training's list, too",
    )
    assert facts_of(source)[LEAKED] == 16


def test_an_unknown_list_tells_nothing(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    (root / "ImageSets/FewShot/train.txt").unlink()
    source = PascalSource(root)
    assert not lists_known(source)
    assert refuse_leaks(source, "refuse") == ()


def test_one_folder_of_masks_for_both_lists_of_coco(tmp_path: Path) -> None:
    """Without lists every mask is in both."""
    masks = write_voc(tmp_path / "voc") / "SegmentationClassAug"
    with pytest.raises(DataError, match="160 of 160 images"):
        refuse_leaks(CocoSource(tmp_path, masks=masks), "refuse")
