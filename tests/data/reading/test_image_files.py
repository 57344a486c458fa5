"""Images are found by their id, whatever the ending."""

import pytest
from PIL import Image
from tests.data.fabricate import write_coco, write_voc

from fss.data.reading.image_files import MASK_ENDINGS, file_of, stems
from fss.data.sources.coco import CocoSource
from fss.data.sources.shapes import ShapesSource
from fss.errors import DataError


def as_png(path, ending):
    """Save an image in another format beside the original, which goes."""
    target = path.with_suffix(ending)
    with Image.open(path) as image:
        image.save(target, format="PNG" if ending.lower() == ".png" else "JPEG")
    path.unlink()
    return target


@pytest.mark.parametrize("ending", [".png", ".PNG", ".JPG", ".jpeg", ".JPEG"])
def test_every_ending_is_found(tmp_path, ending):
    """All of them used to be missing."""
    root = write_voc(tmp_path / "voc", per_split=20)
    target = as_png(root / "JPEGImages" / "val_0003.jpg", ending)
    source = ShapesSource(root)
    source.check("val")
    assert source.image_path("val_0003") == target
    assert source.image("val_0003").shape == (96, 128, 3)
    assert source.image_path("val_0004").name == "val_0004.jpg"
    assert source.image_path("gone").name == "gone.jpg"


def test_coco_finds_them_too(tmp_path):
    root = write_coco(tmp_path / "coco", {1: "person"})
    stem = "COCO_val2014_000000000503"
    target = as_png(root / "val2014" / f"{stem}.jpg", ".png")
    source = CocoSource(root, progress=False)
    source.prepare("val")
    source.check("val")
    assert source.image_path(stem) == target


def test_two_files_of_one_id_are_refused(tmp_path):
    root = write_voc(tmp_path / "voc", per_split=20)
    Image.open(root / "JPEGImages" / "val_0003.jpg").save(root / "JPEGImages" / "val_0003.png")
    with pytest.raises(DataError, match=r"1 of 20 ids have several images in .*val_0003\.jpg and val_0003\.png"):
        ShapesSource(root).check("val")


def test_masks_beside_the_images_are_no_images(tmp_path):
    root = write_voc(tmp_path / "voc", per_split=20)
    for mask in (root / "SegmentationClassAug").iterdir():
        mask.rename(root / "JPEGImages" / mask.name)
    source = ShapesSource(root, masks=root / "JPEGImages")
    source.check("val")
    (root / "JPEGImages" / "val_0003.jpg").unlink()
    assert source.image_path("val_0003").name == "val_0003.jpg"
    with pytest.raises(DataError, match=r"1 of 20 photographs \(.*\) are missing, first .*val_0003\.jpg"):
        source.check("val")


def test_lists_of_hsnet_are_named(tmp_path):
    root = write_voc(tmp_path / "voc", per_split=20)
    (tmp_path / "l.txt").write_text("val_0003__15\nval_0004__2\n")
    with pytest.raises(DataError, match=r"2 of 2 photographs .* are missing.*HSNet.*sed"):
        ShapesSource(root, val_list=tmp_path / "l.txt").check("val")


def test_stems_and_files(tmp_path):
    for name in ("a.jpg", "a.PNG", "b.png", "c.txt", "d.v2.jpeg"):
        (tmp_path / name).touch()
    assert stems(tmp_path) == {"a": 2, "b": 1, "d.v2": 1}
    assert stems(tmp_path, MASK_ENDINGS) == {"a": 1, "b": 1}
    assert not stems(tmp_path / "gone")
    assert file_of(tmp_path, "d.v2").name == "d.v2.jpeg"
    assert file_of(tmp_path, "a", MASK_ENDINGS).name == "a.PNG"
