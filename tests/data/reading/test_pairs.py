"""A mask lies on its image, whichever way the image was stored."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.data.fabricate import make_image, save_mask, write_voc

from fss.data.episode_dataset import read_pair
from fss.data.reading.pairs import read_mask_of
from fss.data.sources.shapes import ShapesSource
from fss.data.user_images import read_support
from fss.errors import DataError

STORED = (20, 30)
MASK = np.zeros(STORED, np.uint8)
MASK[2:9, 3:20] = 1


def save(path, turn, shape=STORED):
    note = Image.Exif()
    note[0x0112] = turn
    Image.fromarray(make_image(3, shape)).save(path, exif=note)


def shown(mask, turn):
    note = Image.Exif()
    note[0x0112] = turn
    image = Image.fromarray(mask)
    image.info["exif"] = note.tobytes()
    return np.array(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("turn", [1, 5, 6, 7, 8])
def test_the_mask_fits_as_shown_or_as_stored(tmp_path, turn):
    """Training used to take the stored pixels of both, prediction the turned image with any mask."""
    save(tmp_path / "p.jpg", turn)
    expected = shown(MASK, turn)
    for drawn in (MASK, expected):
        save_mask(tmp_path / "m.png", drawn, palette=False)
        assert np.array_equal(read_mask_of(tmp_path / "p.jpg", tmp_path / "m.png"), expected)
        image, label = read_support(tmp_path / "p.jpg", tmp_path / "m.png")
        assert np.array_equal(label, expected)
        assert image.shape[:2] == label.shape


@pytest.mark.parametrize("turn", [2, 3, 4])
def test_a_mask_that_fits_both_ways_is_refused(tmp_path, turn):
    save(tmp_path / "p.jpg", turn)
    save_mask(tmp_path / "m.png", MASK, palette=False)
    for read in (read_mask_of, read_support):
        with pytest.raises(DataError, match=rf"EXIF orientation {turn}.*m\.png fits it turned and not.*-auto-orient"):
            read(tmp_path / "p.jpg", tmp_path / "m.png")


def test_a_square_is_refused_and_another_size_too(tmp_path):
    save(tmp_path / "p.jpg", 6, (30, 30))
    save_mask(tmp_path / "m.png", np.ones((30, 30), np.uint8), palette=False)
    with pytest.raises(DataError, match="EXIF orientation 6"):
        read_support(tmp_path / "p.jpg", tmp_path / "m.png")
    save_mask(tmp_path / "m.png", np.ones((29, 30), np.uint8), palette=False)
    with pytest.raises(DataError, match=r"p\.jpg has 30 x 30 pixels, its mask .*m\.png 30 x 29"):
        read_support(tmp_path / "p.jpg", tmp_path / "m.png")


@pytest.mark.parametrize("cached", [0, 1 << 20])
def test_a_data_set_of_turned_images_pairs_them_with_stored_masks(tmp_path, cached):
    root = write_voc(tmp_path / "voc", per_split=20)
    path = root / "JPEGImages" / "val_0003.jpg"
    pixels = np.array(Image.open(path))
    mask = np.array(Image.open(root / "SegmentationClassAug" / "val_0003.png"))
    note = Image.Exif()
    note[0x0112] = 8
    Image.fromarray(pixels).save(path, exif=note)
    source = ShapesSource(root)
    source.keep_images(cached)
    for _ in range(2):
        image, label = read_pair(source, "val_0003")
        assert image.shape == (128, 96, 3)
        assert np.array_equal(label, np.rot90(mask, 1))
