import json

import pytest

from fss.data.sources.folds import COCO_CATEGORY_IDS, COCO_CLASSES, PASCAL_CLASSES, block_fold, coco_fold
from fss.errors import DataError


def test_pascal_folds_hold_out_five_classes_each():
    novel = [block_fold(PASCAL_CLASSES, f).novel for f in range(4)]
    assert novel == [tuple(range(5 * f + 1, 5 * f + 6)) for f in range(4)]
    assert [PASCAL_CLASSES[c] for c in novel[2]] == ["diningtable", "dog", "horse", "motorbike", "person"]
    assert block_fold(PASCAL_CLASSES, 1).base == (1, 2, 3, 4, 5, *range(11, 21))


def test_coco_fwb_fold_0_is_the_published_list():
    names = [COCO_CLASSES[c] for c in coco_fold(0).novel]
    assert names == (
        "person airplane boat parking_meter dog elephant backpack suitcase sports_ball skateboard wine_glass spoon "
        "sandwich hot_dog chair dining_table mouse microwave refrigerator scissors"
    ).replace(" ", ",").replace("_", " ").split(",")
    assert coco_fold(3).novel == tuple(range(4, 81, 4))
    assert coco_fold(2, "panet").novel == tuple(range(41, 61))


@pytest.mark.parametrize("scheme", ["fwb", "panet"])
def test_coco_folds_partition_the_classes(scheme):
    folds = [coco_fold(f, scheme) for f in range(4)]
    assert sorted(c for f in folds for c in f.novel) == list(range(1, 81))
    assert all(len(f.novel) == 20 and not set(f.novel) & set(f.base) and len(f.base) == 60 for f in folds)


def test_coco_names_and_category_ids_match_the_real_file(coco128):
    categories = json.loads((coco128 / "annotations" / "instances_val2014.json").read_text())["categories"]
    assert {c["id"] for c in categories} == set(COCO_CATEGORY_IDS)
    by_id = {c["id"]: c["name"] for c in categories}
    assert [by_id[c] for c in COCO_CATEGORY_IDS] == list(COCO_CLASSES.values())


@pytest.mark.parametrize("fold", [-1, 4, True, 1.0, "1"])
def test_wrong_fold_names_the_allowed_ones(fold):
    with pytest.raises(DataError, match=r"0, 1, 2, 3"):
        block_fold(PASCAL_CLASSES, fold)


def test_wrong_scheme():
    with pytest.raises(DataError, match="fwb"):
        coco_fold(0, "fvb")
