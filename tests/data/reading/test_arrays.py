"""Arrays are taken as they are meant, or refused."""

import numpy as np
import pytest
import torch

from fss.data.reading.arrays import as_image, as_label
from fss.errors import DataError

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
MASK = np.eye(4, 5, dtype=np.uint8)


def test_grey_and_views_become_rgb():
    """A grey array used to be read past its end: two channels of the input were never written."""
    grey = RGB[..., 0]
    for given in (grey, grey[..., None]):
        assert np.array_equal(as_image(given, "x"), np.stack([grey] * 3, axis=2))
    for given in (RGB, RGB[::-1], RGB[:, ::2], RGB[..., ::-1]):
        assert np.array_equal(as_image(given, "x"), given)
        assert as_image(given, "x").flags.c_contiguous


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (RGB.astype(np.uint16), r"The query is of type uint16.*>> 8"),
        (RGB / 255, r"of type float64.*255 \* image"),
        (RGB.astype(np.int64), "of type int64"),
        (np.dstack([RGB, RGB[..., :1]]), r"shape \(4, 5, 4\).*:3"),
        (np.moveaxis(RGB, -1, 0), r"shape \(3, 4, 5\).*moveaxis"),
        (RGB[None], r"shape \(1, 4, 5, 3\)"),
        (RGB[:0], r"shape \(0, 5, 3\)"),
        (torch.zeros(3, 4, 5), "is a Tensor; allowed is a numpy array"),
        ([[1, 2]], "is a list"),
    ],
)
def test_other_images_are_refused(given, message):
    with pytest.raises(DataError, match=message):
        as_image(given, "The query")


def test_masks_of_every_integer_type():
    for given in (MASK, MASK.astype(bool), MASK.astype(np.int64), MASK[..., None], np.asfortranarray(MASK)):
        label = as_label(given, "x")
        assert label.dtype == np.uint8
        assert np.array_equal(label, MASK)
    assert as_label(np.array([[0, 1, 255]], np.int32), "x").tolist() == [[0, 1, 255]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (6 * MASK, r"holds the values \[0, 6\].*mask == VALUE"),
        (300 * MASK.astype(np.int64), r"holds the values \[0, 300\]"),
        (MASK.astype(np.float32), "of type float32.*> 0.5"),
        (np.dstack([MASK] * 3), r"shape \(4, 5, 3\)"),
        (torch.ones(4, 5), "is a Tensor"),
    ],
)
def test_other_masks_are_refused(given, message):
    """Values besides 0, 1 and 255 used to count as background."""
    with pytest.raises(DataError, match=message):
        as_label(given, "Mask 1")
