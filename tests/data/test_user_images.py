"""Masks as drawing programs, cameras and data sets leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fss.data.user_images import read_own_mask
from fss.errors import DataError


def mask(height: int, width: int) -> Any:
    made = np.zeros((height, width), np.uint8)
    made[height // 4 : height // 2, width // 4 : width // 2] = 1
    return made


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_black_and_white_in_every_mode(tmp_path: Path, mode: str) -> None:
    Image.fromarray(255 * mask(20, 30)).convert(mode).save(tmp_path / "m.png")
    assert (read_own_mask(tmp_path / "m.png") == mask(20, 30)).all()


def test_index_masks(tmp_path: Path) -> None:
    indices = np.array([[0, 0, 3], [3, 255, 7]], np.uint8)
    path = tmp_path / "m.png"
    Image.fromarray(indices).save(path)
    assert read_own_mask(path, 3).tolist() == [[0, 0, 1], [1, 255, 0]]
    with pytest.raises(DataError, match=r"holds the values \[0, 3, 7, 255\]. Say which one is the object with --value"):
        read_own_mask(path)
    with pytest.raises(DataError, match="no pixel of value 9"):
        read_own_mask(path, 9)
    Image.fromarray(np.where(indices == 7, 0, indices).astype(np.uint8)).save(path)
    assert read_own_mask(path).tolist() == [[0, 0, 1], [1, 255, 0]], "255 beside one other value means ignore"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    with pytest.raises(DataError, match="empty"):
        read_own_mask(path)


def test_damaged_and_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no mask"):
        read_own_mask(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="damaged or no image"):
        read_own_mask(tmp_path / "x.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match="has colours"):
        read_own_mask(tmp_path / "c.png")


def test_values_of_16_bits_do_not_merge(tmp_path: Path) -> None:
    """300 and 700 used to be one object, as both were clipped to 255."""
    values = np.array([[0, 300, 700], [255, 0, 300]], np.uint16)
    cv2.imwrite(str(tmp_path / "m.png"), values)
    with pytest.raises(DataError, match=r"holds the values \[0, 255, 300, 700\]. Say which one"):
        read_own_mask(tmp_path / "m.png")
    assert read_own_mask(tmp_path / "m.png", 300).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert read_own_mask(tmp_path / "m.png", 700).tolist() == [[0, 0, 1], [0, 0, 0]]
    cv2.imwrite(str(tmp_path / "m.png"), np.where(values == 700, 65535, 0).astype(np.uint16))
    assert read_own_mask(tmp_path / "m.png").tolist() == [[0, 0, 1], [0, 0, 0]]
    cv2.imwrite(str(tmp_path / "m.png"), np.dstack([values] * 3))
    with pytest.raises(DataError, match=r"^The mask \S* is stored as RGB"):
        read_own_mask(tmp_path / "m.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_refused_where_it_matters(tmp_path: Path, mode: str) -> None:
    """White everywhere, the object in the alpha channel: the whole image used to be the object."""
    image = Image.new("L", (30, 20), 255)
    image.putalpha(Image.fromarray(255 * mask(20, 30)))
    image.convert(mode).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"^The mask \S*m\.png has transparent pixels.*-alpha extract"):
        read_own_mask(tmp_path / "m.png")
    image = Image.fromarray(255 * mask(20, 30)).convert(mode)
    image.save(tmp_path / "m.png")
    assert (read_own_mask(tmp_path / "m.png") == mask(20, 30)).all()


def test_trimaps_are_refused(tmp_path: Path) -> None:
    """The unknown border used to be the object, and the object ignored."""
    trimap = np.array([[0, 128, 255]], np.uint8)
    for image in (Image.fromarray(trimap), Image.fromarray(trimap).convert("RGB")):
        image.save(tmp_path / "m.png")
        with pytest.raises(DataError, match=r"--value: 255 if this is a trimap, where 128 is unknown"):
            read_own_mask(tmp_path / "m.png")
        assert read_own_mask(tmp_path / "m.png", 255).tolist() == [[0, 0, 1]]


def test_soft_and_lossy_masks_are_refused(tmp_path: Path) -> None:
    hard = 255 * mask(40, 60)
    Image.fromarray(cv2.GaussianBlur(hard, (5, 5), 1)).save(tmp_path / "soft.png")
    with pytest.raises(DataError, match=r"soft edges.*magick soft\.png -threshold 50%"):
        read_own_mask(tmp_path / "soft.png")
    Image.fromarray(hard).save(tmp_path / "m.jpg")
    for value in (None, 255):
        with pytest.raises(DataError, match=r"^The mask \S*m\.jpg is a JPEG file.*-threshold 50% m\.png"):
            read_own_mask(tmp_path / "m.jpg", value)


def test_black_is_background_whatever_the_palette_says(tmp_path: Path) -> None:
    """Programs sort palettes as they like: white used to be background where it came first."""
    image = Image.fromarray(1 - mask(20, 30))
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "m.png")
    assert (read_own_mask(tmp_path / "m.png") == mask(20, 30)).all()
    assert (read_own_mask(tmp_path / "m.png", 1) == 1 - mask(20, 30)).all(), "named indices are indices"
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"black at 1 and the colour \[255, 0, 0\] at 0"):
        read_own_mask(tmp_path / "m.png")
    assert (read_own_mask(tmp_path / "m.png", 0) == mask(20, 30)).all()
    image = Image.fromarray(15 * mask(20, 30))
    image.putpalette([0, 0, 0] + [9, 90, 9] * 20)
    image.save(tmp_path / "m.png", transparency=3)
    assert (read_own_mask(tmp_path / "m.png") == mask(20, 30)).all(), "a transparent colour that no pixel has"
    image.save(tmp_path / "m.png", transparency=0)
    with pytest.raises(DataError, match=r"^The mask \S* has transparent"):
        read_own_mask(tmp_path / "m.png")


def test_grey_files_of_few_bits_hold_what_was_stored(tmp_path: Path) -> None:
    """Pillow stretches 3 of 2 bits to 255, which then meant 'ignore'."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)  # 4 x 1 pixels, 2 bits, grey
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + bytes([0b00_01_11_11]))) + chunk(b"IEND", b"")
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert read_own_mask(tmp_path / "m.png", 3).tolist() == [[0, 0, 1, 1]]
    with pytest.raises(DataError, match=r"holds the values \[0, 1, 3\]"):
        read_own_mask(tmp_path / "m.png")
