"""COCO's archives -> a root that CocoSource reads, and the rule of the masks."""

import json
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
from tests.data.fabricate import SIZE, write_coco
from tests.data.fabricate_archives import coco_instances, write_coco_archives
from tests.data.trees import tree_hash
from typer.testing import CliRunner

from fss.cli.main import app
from fss.config.identity import identity
from fss.data.prepare.archives import COCO
from fss.data.prepare.coco import prepare_coco
from fss.data.prepare.extraction import Pace
from fss.data.prepare.request import Request
from fss.data.sources.coco import CocoSource
from fss.data.sources.folds import COCO_CATEGORY_IDS
from fss.data.sources.manifest import list_hash
from fss.errors import DataError

QUIET = Pace(1, progress=False)
RULES = ("full", "first_polygon")


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return write_coco_archives(tmp_path_factory.mktemp("archives"), images=12)


@pytest.fixture(scope="module", params=RULES)
def prepared(request, archives, tmp_path_factory):
    root = tmp_path_factory.mktemp("coco") / request.param
    prepare(root, archives, request.param)
    return root


@pytest.fixture(scope="module")
def first_polygons(archives, tmp_path_factory):
    root = tmp_path_factory.mktemp("coco") / "root"
    prepare(root, archives, "first_polygon")
    return root


def prepare(root, archives, rule="full", year=2014, **more):
    options = {"year": year, "mask_rule": rule}
    request = Request("coco", root, archives, options, unverified=True, pace=QUIET)
    return prepare_coco(replace(request, **more))


def command(*args):
    return CliRunner().invoke(app, ["data", "prepare", "coco", *map(str, args)])


def drawn(split, stem, rule):
    """Draw a mask as the rules say, from the fabricated instances: squares, then a second polygon or a column."""
    content = coco_instances(split, 12, 2014)
    (image,) = [i for i in content["images"] if i["file_name"] == f"{stem}.jpg"]
    mask = np.zeros(SIZE, np.uint8)
    for note in content["annotations"]:
        if note["image_id"] != image["id"] or note["iscrowd"]:
            continue
        class_id = COCO_CATEGORY_IDS.index(note["category_id"]) + 1
        if isinstance(note["segmentation"], dict):
            if rule == "full":
                mask[:, 0] = class_id
        elif rule == "first_polygon":
            corners = np.trunc(np.array(note["segmentation"][0]).reshape(-1, 2)).astype(np.int32)
            cv2.fillPoly(mask, [corners], class_id)
        else:
            for polygon in note["segmentation"]:
                (x0, y0), (x1, y1) = np.array(polygon).reshape(-1, 2)[[0, 2]]
                mask[int(y0 + 0.5) : int(y1 + 0.5), int(x0 + 0.5) : int(x1 + 0.5)] = class_id
    return mask


def test_lists_images_and_masks(prepared):
    rule = prepared.name
    source = CocoSource(prepared, mask_rule=rule, progress=False)
    for split, first in (("train", 1000), ("val", 5000)):
        source.check(split)
        ids = source.ids(split)
        assert ids == [f"COCO_{split}2014_{first + k:012d}" for k in range(1, 13)]
        assert sorted(p.stem for p in (prepared / f"{split}2014").iterdir()) == ids
        for stem in ids:
            assert source.image(stem).shape == (*SIZE, 3)
            assert np.array_equal(source.mask(stem), drawn(split, stem, rule)), stem
    assert sorted(p.name for p in (prepared / "annotations").iterdir()) == [
        "instances_train2014.json",
        "instances_val2014.json",
        "train2014",
        "val2014",
    ]


def test_the_rules_differ_where_they_should():
    full, first = (drawn("val", "COCO_val2014_000000005003", rule) for rule in RULES)
    assert full[85, 10] != 0
    assert first[85, 10] == 0  # the second polygon
    assert (full[20:80, 0] != 0).all()
    assert (first[20:80, 0] == 0).all()  # run lengths
    assert first[40, 60] == full[41, 61] != 0
    assert full[40, 60] == 0  # 60.6, 40.6 is truncated


def test_manifest_and_facts(prepared):
    rule = prepared.name
    manifest = json.loads((prepared / "fss.json").read_text())
    assert (manifest["year"], manifest["mask_rule"], manifest["complete"]) == (2014, rule, True)
    assert manifest["counts"] == {"train": 12, "val": 12}
    assert manifest["without_polygon"] == (12 if rule == "first_polygon" else 0)  # half of 24 are crowds
    source = CocoSource(prepared)
    facts = source.facts()
    assert facts == {
        "name": "coco",
        "year": 2014,
        "mask_rule": rule,
        "train_images": 12,
        "train_list": list_hash(source.ids("train")),
        "val_images": 12,
        "val_list": manifest["lists"]["val"],
        "manifest": "unverified",
    }


def test_another_rule_than_the_manifests_is_an_error(prepared):
    made = prepared.name
    (asked,) = set(RULES) - {made}
    source = CocoSource(prepared, mask_rule=asked)
    both = rf"mask_rule={made}, but data.mask_rule={asked}.*data.mask_rule={made}, or prepare.*--mask-rule {asked}"
    for call in (lambda: source.check("val"), lambda: source.ids("train"), lambda: source.prepare("val")):
        with pytest.raises(DataError, match=both):
            call()
    assert CocoSource(prepared).mask_rule == made


def test_masks_without_a_manifest_are_of_unknown_rule(first_polygons, tmp_path):
    for rule in RULES:
        source = CocoSource(first_polygons, masks=first_polygons / "annotations" / "val2014", mask_rule=rule)
        source.check("val")
        assert source.facts()["mask_rule"] == "unknown"
        assert source.facts()["manifest"] == "absent"
    root = write_coco(tmp_path / "coco", {1: "person"})
    source = CocoSource(root, progress=False, mask_rule="first_polygon")
    source.prepare("val")
    assert source.facts()["mask_rule"] == "first_polygon"  # rasterised just now
    assert (source.facts()["val_images"], source.facts().get("train_images")) == (5, None)
    (root / "annotations" / "instances_train2014.json").unlink()
    assert "train_list" not in source.facts()
    source.mask_path("COCO_val2014_000000000501").parent.rename(root / "annotations" / "val2014")
    given = CocoSource(root, mask_rule="full")
    given.check("val")
    assert given.facts()["mask_rule"] == "unknown"


def test_masks_in_the_cache_are_kept_apart_by_rule(tmp_path):
    root = write_coco(tmp_path / "coco", {1: "person", 3: "car", 90: "toothbrush"})
    folders = set()
    for rule in RULES:
        source = CocoSource(root, progress=False, mask_rule=rule)
        folders.add(source.mask_path(source.ids("val")[0]).parent)
        assert len(list(next(iter(folders)).glob("*.png"))) == 5
    assert len(folders) == 2
    assert len({tree_hash(folder) for folder in folders}) == 2


def test_year_2017(tmp_path):
    write_coco_archives(tmp_path / "archives", images=3, year=2017)
    prepare(tmp_path / "root", tmp_path / "archives", year=2017)
    source = CocoSource(tmp_path / "root", year=2017)
    source.check("train")
    assert source.ids("val") == [f"{5000 + k:012d}" for k in (1, 2, 3)]
    assert source.image_path(source.ids("val")[0]).parent.name == "val2017"
    assert CocoSource(tmp_path / "root").year == 2017
    with pytest.raises(DataError, match=r"neither .*train2014.*prepare coco --root .* --year 2014"):
        CocoSource(tmp_path / "root", year=2014).check("train")
    with pytest.raises(DataError, match=r"data\.year=2015 is not known: choose 2014 or 2017"):
        CocoSource(tmp_path / "root", year=2015)
    with pytest.raises(DataError, match="mask_rule=half is not known: choose full or first_polygon"):
        CocoSource(tmp_path / "root", mask_rule="half")


def test_runs_of_other_rules_have_other_identities():
    source = {"_target_": "fss.data.sources.coco.CocoSource", "root": "x", "mask_rule": "full", "year": 2014}
    found = [
        identity({"data": {"name": "coco", "source": source | changed}})
        for changed in ({}, {"mask_rule": "first_polygon"}, {"year": 2017}, {"root": "elsewhere"})
    ]
    assert found[0] == found[3]
    assert len(set(found)) == 3


def test_finished_roots_and_other_options(archives, first_polygons):
    done = command("--root", first_polygons, "--mask-rule", "first_polygon")
    assert done.exit_code == 0
    assert "prepared already" in done.output
    other = command("--root", first_polygons)
    assert other.exit_code == 2
    assert "mask_rule=first_polygon, but full was asked" in other.output
    year = command("--root", first_polygons, "--year", 2015)
    assert year.exit_code == 2


def test_everything_missing_is_said_at_once(tmp_path):
    done = command("--root", tmp_path / "r", "--archives", tmp_path, "--mask-rule", "first_polygon")
    assert done.exit_code == 2
    for record in COCO[2014].values():
        for fact in (record.url, f"{record.size:,} bytes", record.md5):
            assert fact in done.output
    assert f"--root {tmp_path}/r --archives {tmp_path} --year 2014 --mask-rule first_polygon --download" in done.output


def test_unpacked_folders_even_within_the_root(archives, tmp_path):
    for name in ("train2014.zip", "val2014.zip", "annotations_trainval2014.zip"):
        with zipfile.ZipFile(archives / name) as archive:
            archive.extractall(tmp_path / "unpacked")
    prepare(tmp_path / "a", archives)
    manifest = prepare(tmp_path / "b", tmp_path / "unpacked")
    assert manifest["source"] == "unpacked"
    assert (tmp_path / "b" / "train2014" / "COCO_train2014_000000001001.jpg").stat().st_nlink == 2
    prepare(tmp_path / "unpacked", tmp_path / "unpacked")
    for folder in ("annotations/train2014", "annotations/val2014"):
        assert len({tree_hash(tmp_path / r / folder) for r in ("a", "b", "unpacked")}) == 1
    assert tree_hash(tmp_path / "a" / "val2014") == tree_hash(tmp_path / "b" / "val2014")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c["images"][0].update(file_name="../../evil.jpg"), "lacks 1 of"),
        (lambda c: c["images"][0].update(file_name="a b;.jpg"), "a strange one"),
        (lambda c: c["images"][0].update(file_name=c["images"][1]["file_name"]), "one twice"),
        (lambda c: c["images"][0].update(height=10**6, width=10**6), "1000000 x 1000000 pixels"),
        (lambda c: c["annotations"][0].update(segmentation=[[1e9, 1, 2, 2, 3, 3]]), "cannot be drawn"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "cannot be drawn"),
        (lambda c: c["annotations"][0].update(segmentation="x"), "neither polygons nor run lengths"),
        (lambda c: c["annotations"][0].update(category_id=12), "12"),
        (lambda c: c["annotations"].clear(), "names no annotated image"),
    ],
)
def test_damaged_instances(archives, tmp_path, edit, words):
    folder = tmp_path / "archives"
    folder.mkdir()
    for name in ("train2014.zip", "val2014.zip"):
        (folder / name).symlink_to(archives / name)
    content = {split: coco_instances(split, 12, 2014) for split in ("train", "val")}
    edit(content["val"])
    with zipfile.ZipFile(folder / "annotations_trainval2014.zip", "w") as archive:
        for split, notes in content.items():
            archive.writestr(f"annotations/instances_{split}2014.json", json.dumps(notes))
    with pytest.raises(DataError, match=words):
        prepare(tmp_path / "root", folder, "first_polygon")
    assert not list(tmp_path.rglob("*evil*"))
    assert json.loads((tmp_path / "root" / "fss.json").read_text())["complete"] is False
