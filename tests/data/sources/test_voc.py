import pickle

import pytest

from fss.data.sources.base import SegmentationSource
from fss.data.sources.pascal import PascalSource
from fss.data.sources.shapes import ShapesSource
from fss.errors import DataError


def test_reads_images_masks_and_classes(voc):
    assert isinstance(voc, SegmentationSource)
    assert len(voc.ids("train")) == 80
    assert voc.ids("val")[0] == "val_0000"
    assert voc.image("val_0000").shape == (96, 128, 3)
    assert voc.mask("val_0000").shape == (96, 128)
    assert voc.class_names[20] == "thing20"
    assert voc.fold(3).novel == (16, 17, 18, 19, 20)
    assert len(pickle.dumps(voc)) < 5000


def test_missing_data_says_what_to_do(tmp_path, voc_root):
    with pytest.raises(DataError, match=r"fss data shapes --root .*nowhere"):
        ShapesSource(tmp_path / "nowhere").check("train")
    with pytest.raises(DataError, match=r"SegmentationClassAug.*data\.root"):
        PascalSource(tmp_path).check("val")
    with pytest.raises(DataError, match=r"lost\.txt"):
        ShapesSource(voc_root, val_list=tmp_path / "lost.txt").check("val")
    PascalSource(voc_root).check("val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("background\ncat\n", "background first"),
        ("__background__\ncat", "background first"),
        ("a\nb\na\n", "names a more"),
    ],
)
def test_class_names_that_would_shift_or_merge_classes(tmp_path, content, message):
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        _ = ShapesSource(tmp_path).class_names


def test_class_names_with_a_bom(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert ShapesSource(tmp_path).class_names == {1: "cat", 2: "dog"}


def test_lists_name_the_masks_that_are_read(tmp_path, voc_root):
    (tmp_path / "l.txt").write_text("JPEGImages/val_0003.jpg SegmentationClass/val_0003.png\n")
    with pytest.raises(DataError, match="masks in SegmentationClass"):
        ShapesSource(voc_root, val_list=tmp_path / "l.txt").ids("val")
    other = ShapesSource(voc_root, val_list=tmp_path / "l.txt", masks=tmp_path)
    assert other.ids("val") == ["val_0003"]
