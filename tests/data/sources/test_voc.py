import pickle

import pytest

from fss.data.sources.base import SegmentationSource, read_id_list
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


def test_both_list_forms(tmp_path):
    (tmp_path / "l.txt").write_text("2007_000032\n\n/x/JPEGImages/2007.1_a.jpg SegmentationClassAug/2007.1_a.png\n")
    assert read_id_list(tmp_path / "l.txt") == ["2007_000032", "2007.1_a"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"a\nb\na\n", "a more than once"), (b"\xff\xfe", "Cannot")]
)
def test_bad_lists(tmp_path, content, message):
    (tmp_path / "l.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_id_list(tmp_path / "l.txt")


def test_missing_data_says_what_to_do(tmp_path, voc_root):
    with pytest.raises(DataError, match=r"fss data shapes --root .*nowhere"):
        ShapesSource(tmp_path / "nowhere").check("train")
    with pytest.raises(DataError, match=r"SegmentationClassAug.*data\.root"):
        PascalSource(tmp_path).check("val")
    with pytest.raises(DataError, match=r"lost\.txt"):
        ShapesSource(voc_root, val_list=tmp_path / "lost.txt").check("val")
    PascalSource(voc_root).check("val")
