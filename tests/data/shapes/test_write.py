"""The embedded data set: bytes, balance, valid masks, and that a salience baseline is not enough."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fss.data.shapes import write as shapes
from fss.data.shapes.brushes import draw_paints, draw_sprite
from fss.data.shapes.outlines import OUTLINES, unit_outline
from fss.data.shapes.scenes import CLASSES, OTHER_CLASSES, VOID, Objects, class_name, draw_scene, draw_single
from fss.data.shapes.textures import SURFACES
from fss.data.shapes.write import write_shapes
from fss.errors import DataError
from fss.types import IGNORE

SMALL = {"train": 6, "val": 4, "pretrain_per_class": 1}


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, 3, **SMALL, workers=1)
    return root


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [draw_scene(0, "val", n) for n in range(300)]


def test_layout(written: Path) -> None:
    ids = {s: (written / f"ImageSets/FewShot/{s}.txt").read_text().split() for s in ("train", "val")}
    assert len(ids["train"]) == 6
    assert len(ids["val"]) == 4
    assert not set(ids["train"]) & set(ids["val"])
    for i in ids["train"] + ids["val"]:
        image = cv2.imread(str(written / f"JPEGImages/{i}.jpg"))
        mask = cv2.imread(str(written / f"SegmentationClassAug/{i}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.ndim == 2
        assert mask.dtype == np.uint8
        assert mask.shape == image.shape[:2]
    assert (written / "classes.txt").read_text().split() == [class_name(c) for c in CLASSES]
    for split in ("train", "val"):
        folders = sorted(p.name for p in (written / "classification" / split).iterdir())
        assert folders == sorted(class_name(c) for c in OTHER_CLASSES)
        assert all(len(list((written / "classification" / split / f).glob("*.jpg"))) == 1 for f in folders)


def test_files_hold_what_was_drawn(written: Path) -> None:
    image, label = draw_scene(3, "val", 2)
    mask = cv2.imread(str(written / "SegmentationClassAug/val_00002.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, label)
    stored = cv2.imread(str(written / "JPEGImages/val_00002.jpg"))[..., ::-1]
    assert np.abs(stored.astype(float) - image).mean() < 12


def test_large_objects_are_larger_and_fewer(tmp_path: Path) -> None:
    write_shapes(tmp_path / "s", 3, **SMALL, objects="large", workers=1)
    mask = cv2.imread(str(tmp_path / "s/SegmentationClassAug/val_00000.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, draw_scene(3, "val", 0, "large")[1])

    def scenes(objects: Objects) -> tuple[float, float]:
        labels = [draw_scene(0, "val", n, objects)[1] for n in range(60)]
        classes = [len(set(np.unique(label)) - {0, 255}) for label in labels]
        covered = [float(((label > 0) & (label < 255)).mean()) for label in labels]
        return float(np.mean(classes)), float(np.mean(covered)) / float(np.mean(classes))

    (many, small), (few, large) = scenes("small"), scenes("large")
    assert few < many
    assert 1.5 * small < large < 2.5 * small
    with pytest.raises(DataError, match="choose one of small, large"):
        write_shapes(tmp_path / "t", objects="huge")  # type: ignore[arg-type]


def test_bytes_depend_on_the_seed_and_not_on_the_workers(written: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "two", 3, **SMALL, workers=2)
    assert contents(tmp_path / "two") == contents(written)
    write_shapes(tmp_path / "other", 4, **SMALL, workers=1)
    mine, other = contents(written), contents(tmp_path / "other")
    assert mine.keys() == other.keys()
    assert all(mine[k] != other[k] for k in mine if k.endswith(".jpg"))


def test_a_image_does_not_depend_on_the_size_of_the_data_set(written: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "s", 3, train=2, val=1, pretrain_per_class=1, workers=1)
    mine, big = contents(tmp_path / "s"), contents(written)
    assert all(big[k] == v for k, v in mine.items() if k.endswith((".jpg", ".png")))


def test_written_once_and_replaced_when_it_does_not_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "s"
    write_shapes(root, 1, **SMALL, workers=1)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    write_shapes(root, 1, **SMALL, workers=1)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    reference = contents(root)
    (root / "JPEGImages/train_00001.jpg").unlink()
    write_shapes(root, 1, **SMALL, workers=1)
    assert contents(root) == reference
    write_shapes(root, 2, **SMALL, workers=1)
    assert json.loads((root / "manifest.json").read_text())["seed"] == 2
    monkeypatch.setattr(shapes, "generator_version", lambda: "newer")
    write_shapes(root, 2, **SMALL, workers=1)
    assert json.loads((root / "manifest.json").read_text())["version"] == "newer"


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, calls = tmp_path / "s", []

    def stop(*args: object) -> bytes:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return b"x"

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "_encode", stop)
        with pytest.raises(KeyboardInterrupt):
            write_shapes(root, 1, **SMALL, workers=1)
    assert len(calls) == 5
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []
    partial = tmp_path / ".s.partial"  # what a killed process leaves
    (partial / "JPEGImages").mkdir(parents=True)
    (partial / "JPEGImages/stranger.jpg").write_bytes(b"x")
    write_shapes(root, 1, **SMALL, workers=1)
    assert not partial.exists()
    assert not (root / "JPEGImages/stranger.jpg").exists()
    assert len(list((root / "JPEGImages").iterdir())) == 10


def test_a_killed_process_leaves_no_data_no_lock_and_no_workers(tmp_path: Path) -> None:
    root = tmp_path / "s"
    code = f"from fss.data.shapes.write import *; write_shapes(Path({str(root)!r}), workers=2)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: any(tmp_path.glob(".s.partial/JPEGImages/*.jpg")))
    process.kill()
    process.wait()
    assert not root.exists()
    wait_until(lambda: not session_lives(process.pid))
    write_shapes(root, 1, **SMALL, workers=1)
    assert len(list((root / "JPEGImages").iterdir())) == 10


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def session_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_interrupted_replacement_keeps_the_old_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "s"
    write_shapes(root, 1, **SMALL, workers=1)
    before = contents(root)

    def fail(*args: object) -> bytes:
        raise OSError("disk full")

    monkeypatch.setattr(shapes, "_encode", fail)
    with pytest.raises(DataError, match="disk full"):
        write_shapes(root, 2, **SMALL, workers=1)
    assert contents(root) == before


def test_foreign_files_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="no shapes data set"):
        write_shapes(tmp_path, **SMALL, workers=1)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_counts_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="val=0"):
        write_shapes(tmp_path / "s", val=0)


def test_no_class_can_be_told_by_shape_or_texture_alone() -> None:
    assert len(set(CLASSES)) == 20
    for axis in (0, 1):
        assert min(Counter(c[axis] for c in CLASSES).values()) >= 2
        for fold in range(4):
            novel = [c[axis] for c in CLASSES[5 * fold : 5 * fold + 5]]
            assert len(set(novel)) == 5
            rest = {c[axis] for k, c in enumerate(CLASSES) if k // 5 != fold}
            assert set(novel) <= rest


def test_pretraining_classes_are_others_and_share_some_parts() -> None:
    assert 16 <= len(set(OTHER_CLASSES)) == len(OTHER_CLASSES) <= 20
    assert not set(OTHER_CLASSES) & set(CLASSES)
    for axis in (0, 1):
        mine, theirs = {c[axis] for c in CLASSES}, {c[axis] for c in OTHER_CLASSES}
        assert mine & theirs
        assert len(theirs - mine) >= 4
        assert len(mine - theirs) >= 4


def test_classes_are_balanced_and_large_enough(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    areas = np.array([np.bincount(label.ravel(), minlength=256)[1:21] for _, label in scenes])
    present = (areas > 0).sum(axis=0)
    assert present.min() > 0.65 * present.mean()
    assert present.max() < 1.4 * present.mean()
    assert (areas >= 300).sum() > 0.97 * present.sum()
    assert (areas >= 300).sum(axis=0).min() >= 25


def test_masks_are_valid(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert VOID == IGNORE
    for image, label in scenes[:80]:
        height, width = label.shape
        assert 88 <= height <= 112
        assert 112 <= width <= 144
        assert image.shape == (height, width, 3)
        assert image.dtype == label.dtype == np.uint8
        assert set(np.unique(label)) <= {*range(21), VOID}
        assert len(set(np.unique(label)) - {0, VOID}) >= 1
        for a, b in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            touching = (a != b) & (a != VOID) & (b != VOID)
            assert not touching.any(), "two regions without an outline between them"
        core = cv2.erode((label == VOID).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1]
        assert core.sum() < 30, "the outline is thicker than a pixel or two"


def test_the_object_lies_where_the_mask_says(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    contrast = []
    for image, label in scenes:
        values = image.astype(float)
        contrast.append(np.abs(values[(label > 0) & (label < 21)].mean(0) - values[label == 0].mean(0)).max())
    assert np.median(contrast) > 25


def test_salience_is_not_enough(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    inter, union = np.zeros(21), np.zeros(21)
    several = 0
    for _, label in scenes:
        found = set(np.unique(label)) - {0, VOID}
        several += len(found) >= 2
        for c in found:
            inter[c] += (label == c).sum()
            union[c] += ((label > 0) & (label != VOID)).sum()
    assert several > 0.9 * len(scenes)
    assert (inter[1:] / union[1:]).mean() < 0.45


@pytest.mark.parametrize("name", OUTLINES)
def test_outlines_have_unit_area_as_filled(name: str) -> None:
    rng = np.random.default_rng(0)
    paints = draw_paints(rng, np.zeros(3, np.float32))
    for _ in range(5):
        assert all(c.shape[1] == 2 for c in unit_outline(name, rng))
        sprite = draw_sprite(name, "plain", 900.0, paints, rng)
        assert sprite.alpha.sum() == pytest.approx(900, rel=0.04)
        assert max(sprite.alpha[0].max(), sprite.alpha[-1].max(), sprite.alpha[:, 0].max()) == 0


@pytest.mark.parametrize("name", [n for n in SURFACES if n != "plain"])
def test_surfaces_mix_both_colours(name: str) -> None:
    x, y = np.meshgrid(np.arange(-24, 24, 0.5, dtype=np.float32), np.arange(-24, 24, 0.5, dtype=np.float32))
    mixes = [SURFACES[name](x, y, 7.0, np.random.default_rng(s)) for s in range(6)]
    assert all(m.shape == x.shape and m.min() >= 0 and m.max() <= 1 for m in mixes)
    assert 0.15 < np.mean(mixes) < 0.85


def test_single_objects() -> None:
    image = draw_single(0, "train", 5, 0)
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, draw_single(0, "train", 5, 0))
    others = [draw_single(1, "train", 5, 0), draw_single(0, "val", 5, 0), draw_single(0, "train", 5, 1)]
    assert all((other != image).any() for other in others)
