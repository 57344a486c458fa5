"""Masks of VOC and SBD become the same indices, and anything else is refused."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from tests.data.fabricate import make_image, two_class_mask
from tests.data.fabricate_archives import encoded, palette_png, sbd_mat, voc_palette

from fss.data.prepare import sbd_masks as sbd
from fss.data.prepare.sbd_masks import BadMemberError, check_image, sbd_mask, voc_mask


def mat(content, **options):
    buffer = io.BytesIO()
    savemat(buffer, content, **options)
    return buffer.getvalue()


def test_vocs_palette():
    assert voc_palette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert voc_palette()[-3:] == [224, 224, 192]


def test_palette_and_grey_masks_give_their_indices():
    mask = two_class_mask(15, 20)
    mask[0, :21] = np.arange(21)
    mask[1, 0] = 255
    png = palette_png(mask)
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "P"
        assert np.array(image.convert("L"))[20, 20] != 15  # what reading colours as grey would give
    assert np.array_equal(voc_mask(png), mask)
    assert np.array_equal(voc_mask(encoded(Image.fromarray(mask), "PNG")), mask)


@pytest.mark.parametrize(
    ("png", "words"),
    [
        (encoded(Image.fromarray(make_image(0)), "PNG"), "mode is RGB"),
        (encoded(Image.fromarray(make_image(0)), "JPEG"), "no readable PNG"),
        (palette_png(np.full((4, 4), 21, np.uint8)), "the value 21; allowed are 0 to 20 and 255"),
        (palette_png(two_class_mask(1, 2))[:-60], "no readable PNG"),
        (b"", "no readable PNG"),
    ],
)
def test_other_pngs(png, words):
    with pytest.raises(BadMemberError, match=words):
        voc_mask(png)


def test_sbd_masks():
    mask = np.minimum(two_class_mask(3, 20), 20)
    for kind in (np.uint8, np.int16):
        found = sbd_mask(sbd_mat(mask.astype(kind)))
        assert found.dtype == np.uint8
        assert np.array_equal(found, mask)
    assert np.array_equal(sbd_mask(mat({"GTcls": {"Segmentation": mask}})), mask)  # not compressed


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (sbd_mat(np.full((4, 4), 21, np.uint8)), "the value 21; allowed are 0 to 20"),
        (sbd_mat(np.full((4, 4), 255, np.uint8)), "the value 255"),
        (sbd_mat(np.zeros((4, 4, 3), np.uint8)), "no image of whole numbers"),
        (sbd_mat(np.zeros((4, 4), np.float64)), "no image of whole numbers"),
        (sbd_mat(np.zeros((0, 0), np.uint8)), "no image of whole numbers"),
        (mat({"other": 1}), "no SBD file"),
        (mat({"GTcls": np.zeros((4, 4))}), "no SBD file"),
        (sbd_mat(np.zeros((40, 40), np.uint8))[:-40], "no SBD file|damaged"),
        (b"\x89HDF" + bytes(600), "no MATLAB 5 file"),
        (b"", "no MATLAB 5 file"),
    ],
)
def test_other_mats(data, words):
    with pytest.raises(BadMemberError, match=words):
        sbd_mask(data)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    bomb = bytearray(mat({"x": 1})[:128])
    packed = zlib.compress(bytes((1 << 26) + 10))
    bomb += (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    monkeypatch.setattr(sbd, "loadmat", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(BadMemberError, match="unpacks to more than"):
        sbd_mask(bytes(bomb))


def test_images(monkeypatch):
    jpeg = encoded(Image.fromarray(make_image(0)), "JPEG")
    assert check_image(jpeg) == ((96, 128), True)
    assert check_image(jpeg[:-20]) == ((96, 128), False)
    with pytest.raises(BadMemberError, match="no JPEG"):
        check_image(encoded(Image.fromarray(make_image(0)), "PNG"))
    monkeypatch.setattr(sbd, "MOST_PIXELS", 1000)
    with pytest.raises(BadMemberError, match="128 x 96 pixels; allowed are 1,000"):
        check_image(jpeg)
    with pytest.raises(BadMemberError, match="128 x 96"):
        voc_mask(palette_png(two_class_mask(1, 2)))
