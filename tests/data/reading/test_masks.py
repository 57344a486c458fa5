import numpy as np
import pytest
from PIL import Image
from tests.data.fabricate import save_mask, two_class_mask

from fss.data.reading.masks import mask_histogram, read_mask
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


@pytest.mark.parametrize("ending", ["JPEG", "WEBP", "JPEG2000"])
def test_files_that_change_values_are_refused(tmp_path, ending):
    """A grey JPEG used to be read, with other class ids at every edge."""
    Image.fromarray(two_class_mask(15, 3)).save(tmp_path / "m.png", format=ending)
    for read in (read_mask, mask_histogram):
        with pytest.raises(DataError, match=rf"m\.png is a {ending} file.*Save masks as PNG"):
            read(tmp_path / "m.png")


def test_several_pictures_are_refused(tmp_path):
    pages = [Image.fromarray(two_class_mask(c, 3)) for c in (1, 2)]
    pages[0].save(tmp_path / "m.png", format="TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="holds 2 pictures"):
        read_mask(tmp_path / "m.png")


def test_a_mask_is_turned_by_its_own_exif_note(tmp_path):
    mask = two_class_mask(15, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(mask).save(tmp_path / "m.png", exif=exif)
    assert np.array_equal(read_mask(tmp_path / "m.png"), np.rot90(mask, -1))
