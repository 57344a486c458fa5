"""Archives of VOC and SBD -> a root that PascalSource reads."""

import hashlib
import json
import os
import shutil
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from tests.data.fabricate import write_voc
from tests.data.fabricate_archives import IDS, Images, palette_png, write_sbd_archive, write_voc_archive
from tests.data.trees import tree_hash
from typer.testing import CliRunner

from fss.cli.main import app
from fss.data.prepare import pascal as prepare_pascal
from fss.data.prepare.archives import SBD, VOC
from fss.data.prepare.extraction import Pace
from fss.data.prepare.request import Request
from fss.data.shapes import write as shapes
from fss.data.sources import pascal_lists
from fss.data.sources.manifest import list_hash
from fss.data.sources.pascal import PascalSource
from fss.errors import DataError

QUIET = Pace(1, progress=False)


class Silent(SimpleHTTPRequestHandler):
    """Serves a folder, without ranges."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    write_voc_archive(folder)
    write_sbd_archive(folder)
    return folder


@pytest.fixture(scope="module")
def unpacked(archives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    for name in (VOC.name, SBD.name):
        with tarfile.open(archives / name) as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def prepared(archives, tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared") / "root"
    prepare(root, archives)
    return root


def prepare(root, archives, unverified=True, **more):
    request = Request("pascal", root, archives, unverified=unverified, pace=QUIET)
    return prepare_pascal.prepare_pascal(replace(request, **more))


def command(*args):
    return CliRunner().invoke(app, ["data", "prepare", *map(str, args)])


def test_lists_images_and_masks(prepared):
    source = PascalSource(prepared)
    for split in ("train", "val"):
        source.check(split)
    assert source.ids("train") == IDS.expected_train
    assert source.ids("val") == IDS.expected_val
    listed = {*IDS.expected_train, *IDS.expected_val}
    assert {p.stem for p in (prepared / "JPEGImages").iterdir()} == listed
    assert {p.stem for p in (prepared / "SegmentationClassAug").iterdir()} == listed
    made = Images()
    for image_id in listed:
        own = image_id in (*IDS.seg_train, *IDS.seg_val)
        expected = made.voc_mask(image_id) if own else made.sbd_mask(image_id)
        assert np.array_equal(source.mask(image_id), expected), image_id
        with Image.open(source.mask_path(image_id)) as mask:
            assert mask.mode == "L"
        assert source.image_path(image_id).read_bytes() == made.jpeg(image_id)
    assert sorted(p.name for p in prepared.iterdir()) == [
        "ImageSets",
        "JPEGImages",
        "SegmentationClassAug",
        "fss.json",
    ]


def test_manifest_and_facts(prepared):
    manifest = json.loads((prepared / "fss.json").read_text())
    assert (manifest["data"], manifest["complete"], manifest["source"]) == ("pascal", True, "unverified")
    assert [a["name"] for a in manifest["archives"]] == [VOC.name, SBD.name]
    assert manifest["counts"]["train"] == 44
    assert any("44 images instead of 5953" in d for d in manifest["differences"])
    facts = PascalSource(prepared).facts()
    assert facts["train_list"] == list_hash(IDS.expected_train) == manifest["lists"]["train"]
    assert (facts["val_images"], facts["manifest"], facts["lists"]) == (40, "unverified", "other")


def test_a_root_without_manifest_can_be_used(tmp_path):
    source = PascalSource(write_voc(tmp_path / "voc"))
    source.check("train")
    assert source.facts()["manifest"] == "absent"
    (source.root / "ImageSets" / "FewShot" / "train.txt").unlink()
    assert "train_list" not in source.facts()


def test_number_of_processes_does_not_matter(archives, prepared, tmp_path):
    prepare(tmp_path / "root", archives, pace=Pace(2, progress=False))
    assert tree_hash(tmp_path / "root") == tree_hash(prepared)


def test_a_finished_root_is_left_alone(prepared, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in prepared.rglob("*")}
    done = command("pascal", "--root", prepared, "--archives", tmp_path / "gone")
    assert done.exit_code == 0, done.output
    assert "44 training and 40 validation images" in done.output
    assert "prepared already" in done.output
    assert {p: p.stat().st_mtime_ns for p in prepared.rglob("*")} == before


def test_a_lost_file_is_made_again(archives, prepared, tmp_path):
    prepare(tmp_path / "root", archives)
    (tmp_path / "root" / "JPEGImages" / f"{IDS.seg_val[0]}.jpg").unlink()
    (tmp_path / "root" / "SegmentationClassAug" / f"{IDS.sbd_only[0]}.png").unlink()
    prepare(tmp_path / "root", archives)
    assert tree_hash(tmp_path / "root") == tree_hash(prepared)


def test_unpacked_folders_give_the_same(unpacked, prepared, tmp_path):
    before = tree_hash(unpacked)
    manifest = prepare(tmp_path / "root", unpacked)
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets"):
        assert tree_hash(tmp_path / "root" / folder) == tree_hash(prepared / folder)
    assert manifest["archives"][0] == {"name": VOC.name, "unpacked": True, "verified": False}
    assert tree_hash(unpacked) == before


def test_the_unpacked_folder_itself_may_be_the_root(unpacked, prepared, tmp_path):
    linked_copy(unpacked, tmp_path)
    root = tmp_path / VOC.prefix
    images = tree_hash(root / "JPEGImages")
    prepare(root, tmp_path)
    assert tree_hash(root / "JPEGImages") == images
    assert tree_hash(root / "SegmentationClassAug") == tree_hash(prepared / "SegmentationClassAug")
    PascalSource(root).check("train")


def official(monkeypatch, archives):
    """Declare the fabricated archives the official ones."""
    found = {}
    for name, record in (("VOC", VOC), ("SBD", SBD)):
        md5 = hashlib.md5((archives / record.name).read_bytes()).hexdigest()
        found[name] = replace(record, size=(archives / record.name).stat().st_size, md5=md5)
        monkeypatch.setattr(prepare_pascal, name, found[name])
    return found


def test_verified_archives_must_give_the_released_lists(archives, tmp_path, monkeypatch):
    official(monkeypatch, archives)
    with pytest.raises(DataError, match=r"released lists.*train: 44 images instead of 5953.*--unverified"):
        prepare(tmp_path / "root", archives, unverified=False)
    assert not (tmp_path / "root").exists()
    lists = pascal_lists.derive_lists(IDS.seg_train, IDS.seg_val, IDS.main_val, IDS.sbd)
    monkeypatch.setattr(pascal_lists, "RELEASED_COUNTS", lists.counts())
    monkeypatch.setattr(pascal_lists, "RELEASED_SHA256", lists.hashes())
    manifest = prepare(tmp_path / "root", archives, unverified=False)
    assert (manifest["source"], manifest["differences"]) == ("verified", [])
    assert all(a["verified"] for a in manifest["archives"])


def test_missing_archives_are_downloaded(archives, prepared, tmp_path, monkeypatch):
    records = official(monkeypatch, archives)
    lists = pascal_lists.derive_lists(IDS.seg_train, IDS.seg_val, IDS.main_val, IDS.sbd)
    monkeypatch.setattr(pascal_lists, "RELEASED_COUNTS", lists.counts())
    monkeypatch.setattr(pascal_lists, "RELEASED_SHA256", lists.hashes())
    root = tmp_path / "root"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(archives))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        for name, record in records.items():
            url = f"http://127.0.0.1:{server.server_port}/{record.name}"
            monkeypatch.setattr(prepare_pascal, name, replace(record, url=url))
        done = command("pascal", "--root", root, "--download", "--workers", 1)
        server.shutdown()
    assert done.exit_code == 0, done.output
    assert json.loads((root / "fss.json").read_text())["source"] == "verified"
    assert sorted(p.name for p in (root / "archives").iterdir()) == [VOC.name, SBD.name]
    assert tree_hash(root / "SegmentationClassAug") == tree_hash(prepared / "SegmentationClassAug")


def test_unpacked_folders_must_give_the_released_lists_too(unpacked, tmp_path):
    with pytest.raises(DataError, match="do not give the released lists"):
        prepare(tmp_path / "root", unpacked, unverified=False)


def test_other_archives_are_refused(archives, tmp_path, monkeypatch):
    done = command("pascal", "--root", tmp_path / "root", "--archives", archives)
    assert done.exit_code == 2
    assert "bytes instead of 1,999,639,040" in done.output
    records = official(monkeypatch, archives)
    monkeypatch.setattr(prepare_pascal, "VOC", replace(records["VOC"], md5="f" * 32))
    with pytest.raises(DataError, match=r"its MD5 is \w{32} instead of f{32}.*rm .*--download.*--unverified"):
        prepare(tmp_path / "root", archives, unverified=False)
    assert not (tmp_path / "root").exists()


def test_everything_missing_is_said_at_once(tmp_path):
    done = command("pascal", "--root", tmp_path / "my root", "--archives", tmp_path)
    assert done.exit_code == 2
    for record in (VOC, SBD):
        for fact in (record.url, f"{record.size:,} bytes", record.md5, record.prefix):
            assert fact in done.output
    again = f"fss data prepare pascal --root '{tmp_path}/my root' --archives {tmp_path}"
    assert f"{again}\n" in done.output
    assert f"{again} --download" in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "my root").exists()


def test_a_begun_root_says_how_to_go_on(archives, tmp_path, monkeypatch):
    root = tmp_path / "root"
    with monkeypatch.context() as patch:
        patch.setattr(prepare_pascal, "store_masks", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(root, archives)
    (root / "SegmentationClassAug").mkdir()
    with pytest.raises(DataError, match=r"interrupted. Continue with: fss data prepare pascal --root"):
        PascalSource(root).check("val")
    other = tmp_path / "other"
    write_voc_archive(other, replace(IDS, unused=()))
    write_sbd_archive(other)
    with pytest.raises(DataError, match=r"begun from other archives.*rm -r .*root && fss data prepare"):
        prepare(root, other)
    prepare(root, archives)
    PascalSource(root).check("val")


def test_foreign_files_are_not_taken_over(archives, tmp_path):
    for folder in ("SegmentationClassAug", "JPEGImages", "ImageSets/FewShot"):
        root = tmp_path / folder.replace("/", "_")
        (root / folder).mkdir(parents=True)
        (root / folder / "x").write_text("")
        with pytest.raises(DataError, match=rf"{folder} holds files that fss data prepare did not write"):
            prepare(root, archives)
        assert [p.name for p in root.iterdir()] == [folder.split("/")[0]]


def test_another_data_set_in_the_root(prepared):
    done = command("coco", "--root", prepared)
    assert done.exit_code == 2
    assert "holds pascal prepared" in done.output


@pytest.mark.parametrize("args", [("pascal", "--year", "2017"), ("shapes", "--mask-rule", "full")])
def test_options_of_coco(tmp_path, args):
    done = command(*args, "--root", tmp_path)
    assert done.exit_code == 2
    assert "belong to coco" in done.output


def linked_copy(folder, target):
    shutil.copytree(folder, target, copy_function=os.link, dirs_exist_ok=True)


def change(folder, name, data):
    (folder / name).unlink()
    (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    ("member", "data", "words"),
    [
        (f"{SBD.prefix}/cls/{IDS.sbd_only[0]}.mat", b"junk", "no MATLAB 5 file"),
        (f"{VOC.prefix}/SegmentationClass/{IDS.seg_val[1]}.png", b"junk", "no readable PNG"),
        (f"{VOC.prefix}/JPEGImages/{IDS.seg_val[1]}.jpg", b"junk", "no JPEG"),
        (f"{VOC.prefix}/JPEGImages/{IDS.seg_val[1]}.jpg", Images().jpeg("1")[:-30], "the JPEG ends early"),
        (f"{VOC.prefix}/ImageSets/Segmentation/val.txt", b"../../x\n", "no image id"),
        (f"{VOC.prefix}/ImageSets/Segmentation/val.txt", b"2009_1\n2009_1\n", "repeats an id"),
        (f"{SBD.prefix}/val.txt", b"2008_9999\n", "lacks 1 of"),
    ],
)
def test_damaged_content_is_named(unpacked, tmp_path, member, data, words):
    linked_copy(unpacked, tmp_path)
    change(tmp_path, member, data)
    with pytest.raises(DataError, match=rf"The folder .* incomplete or damaged: .*{words}.*Unpack .* again"):
        prepare(tmp_path / "root", tmp_path)


def test_a_mask_of_another_size_than_its_image(unpacked, tmp_path):
    wrong = Images().voc_mask(IDS.seg_val[0])[:50]
    linked_copy(unpacked, tmp_path)
    change(tmp_path, f"{VOC.prefix}/SegmentationClass/{IDS.seg_val[0]}.png", palette_png(wrong))
    with pytest.raises(DataError, match=r"has \(128, 50\) pixels, its photograph \(128, 96\)"):
        prepare(tmp_path / "root", tmp_path)


def test_shapes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(shapes, "write_shapes", lambda root, workers: asked.append((root, workers)))
    assert command("shapes", "--root", tmp_path / "s", "--workers", 1).exit_code == 0
    assert asked == [(tmp_path / "s", 1)]
