import numpy as np
import pytest
from PIL import Image
from tests.data.fabricate import make_image, save_mask, two_class_mask

from fss.data.sources.masks import mask_histogram, read_image, read_mask
from fss.errors import DataError


@pytest.mark.parametrize("palette", [True, False])
def test_palette_and_grey_give_the_indices(tmp_path, palette):
    mask = two_class_mask(15, 3)
    save_mask(tmp_path / "m.png", mask, palette)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == ("P" if palette else "L")
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)
    assert mask_histogram(tmp_path / "m.png") == np.bincount(mask.ravel(), minlength=256).tolist()


def test_small_palette_is_read_as_indices(tmp_path):
    mask = two_class_mask(2, 3) % 250
    image = Image.fromarray(mask)
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200, 7, 7, 7, 1, 2, 3])
    image.save(tmp_path / "m.png", bits=4)
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)


@pytest.mark.parametrize("mode", ["RGB", "1", "I;16", "LA"])
def test_other_modes_are_refused(tmp_path, mode):
    Image.new(mode, (8, 8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="palette"):
        read_mask(tmp_path / "m.png")


def test_truncated_and_missing_masks_are_named(tmp_path):
    save_mask(tmp_path / "m.png", np.random.default_rng(0).integers(0, 20, (90, 90)).astype(np.uint8))
    data = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(data[: len(data) // 2])
    for read in (read_mask, mask_histogram):
        with pytest.raises(DataError, match=r"m\.png"):
            read(tmp_path / "m.png")
        with pytest.raises(DataError, match=r"absent\.png"):
            read(tmp_path / "absent.png")


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
