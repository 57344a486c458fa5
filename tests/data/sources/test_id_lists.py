"""Lists of images are read as they are meant, or refused, never in part."""

import pytest

from fss.data.sources.id_lists import read_id_list
from fss.errors import DataError


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"2007_000032\n\n/x/JPEGImages/2007.1_a.jpg SegmentationClassAug/2007.1_a.png\n", ["2007_000032", "2007.1_a"]),
        (b"\xef\xbb\xbfa\r\nb\r\n", ["a", "b"]),
        (rb"JPEGImages\a.JPG SegmentationClassAug\a.png", ["a"]),
        (b"a.jpg,a.png\nb.jpeg;b.PNG\n", ["a", "b"]),
        (b"a  1\nb -1\nc  1\n", ["a", "c"]),
        (b"x/a.jpg\t1\nb.jpg\t-1\n", ["a"]),
        (b"1 1\n2 -1\n-1 1\n", ["1", "-1"]),
        (b"a.tif\n", ["a.tif"]),
    ],
)
def test_forms_that_are_read(tmp_path, content, ids):
    """The first id used to hold the BOM, a backslash the folder; rows marked -1 counted as members."""
    (tmp_path / "l.txt").write_bytes(content)
    assert read_id_list(tmp_path / "l.txt") == ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\n", "empty"),
        (b"a\nb\na\n", "a more than once"),
        (b"a.jpg\nx/a.png\n", "a more than once"),
        (b"\xff\xfea\x00", "Cannot read.*UTF-8"),
        (b"a 1\nb 0\n", r"line 'b 0'.*difficult"),
        (b"a 1\nb\n", r"line 'b' among lines of an id and a number"),
        (b"a -1\nb -1\n", "every image with -1"),
        (b"a 1\nb 7\n", "line 'b 7'"),
        (b"a.jpg b.png\n", r"line 'a\.jpg b\.png', of which only a part"),
        (b"my photo.jpg\n", "line 'my photo.jpg'"),
        (b"a.jpg a.png 3\n", "only a part"),
        (b"a cat\n", "only a part"),
    ],
)
def test_forms_that_are_refused(tmp_path, content, message):
    """Whatever followed the first word used to be dropped."""
    (tmp_path / "l.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_id_list(tmp_path / "l.txt")


def test_masks_of_another_folder_are_refused(tmp_path):
    (tmp_path / "l.txt").write_text("JPEGImages/a.jpg VOC/SegmentationClass/a.png\n")
    assert read_id_list(tmp_path / "l.txt") == ["a"]
    assert read_id_list(tmp_path / "l.txt", "SegmentationClass") == ["a"]
    with pytest.raises(DataError, match=r"masks in SegmentationClass, .* from SegmentationClassAug.*data\.masks"):
        read_id_list(tmp_path / "l.txt", "SegmentationClassAug")
