"""Images are read the same way for training, testing and prediction."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.data.fabricate import make_image

from fss.data.reading.images import orientation, read_image, turned
from fss.errors import DataError

PHOTO = make_image(3, (20, 30))


def exif(turn):
    note = Image.Exif()
    note[0x0112] = turn
    return note


def save_16_bit(path, pixels):
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def test_image_is_rgb_and_damage_is_named(tmp_path):
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 250
    Image.fromarray(red).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - red).max() < 12
    Image.fromarray(make_image(0, (200, 200))).save(tmp_path / "b.jpg")
    data = (tmp_path / "b.jpg").read_bytes()
    for content in (b"", b"no image", data[: len(data) // 2]):
        (tmp_path / "b.jpg").write_bytes(content)
        with pytest.raises(DataError, match=r"b\.jpg"):
            read_image(tmp_path / "b.jpg")
    with pytest.raises(DataError, match=r"c\.jpg"):
        read_image(tmp_path / "c.jpg")


@pytest.mark.parametrize("ending", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("turn", [1, 2, 3, 4, 5, 6, 7, 8])
def test_images_are_turned_as_a_viewer_does(tmp_path, ending, turn):
    """Training used to read the pixels as stored, prediction turned them."""
    path = tmp_path / f"p.{ending}"
    Image.fromarray(PHOTO).save(path, exif=exif(turn), **({"lossless": True} if ending == "webp" else {}))
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_image(path), expected)
    assert orientation(path) == (turn, (0, 0) if turn == 1 else (20, 30))
    assert expected.shape == ((30, 20, 3) if turn > 4 else (20, 30, 3))


@pytest.mark.parametrize(
    "note", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0"]
)
def test_an_exif_note_that_says_nothing_turns_nothing(tmp_path, note):
    plain = io.BytesIO()
    Image.fromarray(PHOTO).save(plain, "JPEG")
    data = plain.getvalue()
    (tmp_path / "p.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note + data[2:])
    assert read_image(tmp_path / "p.jpg").shape == (20, 30, 3)
    assert orientation(tmp_path / "p.jpg") == (1, (0, 0))


def test_turned_keeps_the_dtype_and_copies_nothing_it_need_not():
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert turned(mask, 1) is mask
    assert turned(mask, 6).tolist() == [[3, 0], [4, 1], [5, 2]]
    assert turned(mask, 6).flags.c_contiguous


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    """Prediction used to clip every value above 255 to white."""
    grey = np.arange(0, 65536, 13, dtype=np.uint16)[: 60 * 80].reshape(60, 80)
    for name in ("g.png", "g.tiff"):
        save_16_bit(tmp_path / name, grey)
        assert np.array_equal(read_image(tmp_path / name), np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2))
    colours = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=2)
    for name in ("c.png", "c.tiff"):
        save_16_bit(tmp_path / name, colours)
        assert np.array_equal(read_image(tmp_path / name), (colours >> 8).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA"])
def test_opaque_images_of_every_mode_become_rgb(tmp_path, mode):
    image = Image.fromarray(PHOTO).convert("L" if mode in ("LA", "PA") else "RGB")
    image = image.convert("P").convert(mode) if mode == "PA" else image.convert(mode)
    path = tmp_path / ("i.tiff" if mode == "PA" else "i.png")
    image.save(path)
    assert np.array_equal(read_image(path), np.array(image.convert("RGB")))


def test_grey_and_cmyk_photographs(tmp_path):
    Image.fromarray(PHOTO).convert("L").save(tmp_path / "g.jpg")
    grey = np.array(Image.open(tmp_path / "g.jpg"))
    assert np.array_equal(read_image(tmp_path / "g.jpg"), np.repeat(grey[..., None], 3, 2))
    Image.fromarray(PHOTO).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "c.jpg").astype(int) - PHOTO).max() < 16


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_refused(tmp_path, mode):
    image = Image.fromarray(PHOTO).convert("RGBA")
    image.putpixel((3, 4), (9, 9, 9, 0))
    if mode == "P":
        Image.fromarray(np.eye(8, dtype=np.uint8)).convert("P").save(tmp_path / "i.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "i.png")
    with pytest.raises(DataError, match=r"^The image \S*i\.png has transparent pixels.*-flatten"):
        read_image(tmp_path / "i.png")


def test_what_is_no_single_picture_of_known_white_is_refused(tmp_path):
    pages = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
    pages[0].save(tmp_path / "s.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"^The image \S* holds 2 pictures"):
        read_image(tmp_path / "s.tiff")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(DataError, match=r"^The image \S* holds 32-bit values"):
        read_image(tmp_path / "f.tiff")


def test_damage_of_other_formats_is_named(tmp_path):
    Image.fromarray(make_image(0, (90, 90))).save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    (tmp_path / "p.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"p\.png is damaged"):
        read_image(tmp_path / "p.png")


def test_real_photographs_keep_their_pixels(coco128):
    """As OpenCV decodes them, which the released code does."""
    files = sorted(coco128.glob("*2014/*.jpg"))[:40]
    assert len(files) == 40
    for path in files:
        decoded = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert np.array_equal(read_image(path), decoded[..., ::-1])
        assert orientation(path) == (1, (0, 0))
