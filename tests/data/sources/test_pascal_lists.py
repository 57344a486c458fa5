"""The derivation of the lists, on the released ids themselves."""

import random

import pytest

from fss.data.sources.manifest import list_hash
from fss.data.sources.pascal_lists import RELEASED_COUNTS, RELEASED_SHA256, derive_lists, differences


@pytest.fixture(scope="module")
def released(pascal_dir):
    return {split: (pascal_dir / f"{split}.txt").read_text().split() for split in ("train", "val")}


@pytest.fixture(scope="module")
def image_sets(released):
    """Image sets from which the released lists follow: which images of SBD are in VOC's training set is not known
    from the lists, only how many, so that any 1,134 will do."""
    train, val = released["train"], released["val"]
    sbd, voc_only = train[: RELEASED_COUNTS["sbd"]], train[RELEASED_COUNTS["sbd"] :]
    shared = random.Random(0).sample(sbd, 1134)
    voc_train = sorted([*voc_only, *shared])
    held_out = [f"2011_9{k:05d}" for k in range(50)]  # of SBD, in Main/val but in no segmentation set
    found = [*sbd, *held_out, *val[:900]]
    random.Random(1).shuffle(found)
    return {"voc_train": voc_train, "voc_val": val, "main_val": [*held_out, *val[:500]], "sbd": found}


def test_pinned_hashes_and_counts_are_those_of_the_released_lists(released):
    assert {split: list_hash(ids) for split, ids in released.items()} == RELEASED_SHA256
    assert {split: len(ids) for split, ids in released.items()} == {k: RELEASED_COUNTS[k] for k in ("train", "val")}
    assert released["train"][:3] == ["2008_000008", "2008_000015", "2008_000019"]


def test_real_ids_give_the_released_lists_in_their_order(released, image_sets):
    lists = derive_lists(**image_sets)
    assert list(lists.train) == released["train"]
    assert list(lists.val) == released["val"]
    assert lists.counts() == RELEASED_COUNTS
    assert differences(lists) == []


@pytest.mark.parametrize("lost", ["voc_train", "voc_val", "main_val", "sbd"])
def test_another_image_set_is_noticed(image_sets, lost):
    keep = {"main_val": lambda ids: ids[1:], "sbd": lambda ids: [i for i in ids if i != "2008_000008"]}
    change = keep.get(lost, lambda ids: ids[::-1])
    wrong = differences(derive_lists(**{**image_sets, lost: change(image_sets[lost])}))
    assert any("list" in w for w in wrong)


def test_first_occurrences_are_kept():
    lists = derive_lists(["b", "x", "a"], ["v"], ["m"], ["c", "v", "m", "b"])
    assert (lists.sbd, lists.train) == (("b", "c"), ("b", "c", "x", "a"))
    assert lists.counts() == {"sbd": 2, "voc_train": 3, "merged": 5, "train": 4, "val": 1}
