"""Check images and masks that are given as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from fss.data.reading.masks import UInt8
from fss.errors import DataError

_LABELS = (0, 1, 255)


def as_image(array: Any, what: str) -> UInt8:
    """Return an image as RGB.

    Args:
        array: RGB (H, W, 3), or grey (H, W) or (H, W, 1), uint8.
        what: its name in error messages.

    Returns:
        RGB, (H, W, 3), uint8, contiguous.

    Raises:
        DataError: if it is not such an array.
    """
    pixels = _array(array, what)
    if pixels.dtype != np.uint8:
        raise DataError(f"{what} is of type {pixels.dtype}; allowed is uint8, 0 to 255.{_conversion(pixels)}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        hint = ""
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            hint = " Drop the fourth channel if no pixel is transparent: image[..., :3]."
        elif pixels.ndim == 3 and pixels.shape[0] in (1, 3):
            hint = " Put the channels last: np.moveaxis(image, 0, -1)."
        raise DataError(
            f"{what} has shape {np.shape(array)}; allowed are RGB (H, W, 3) and grey (H, W) or (H, W, 1).{hint}"
        )
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def as_label(array: Any, what: str) -> UInt8:
    """Return the mask of an object.

    Args:
        array: (H, W) or (H, W, 1), bool or integer: 1 on the object, 0 elsewhere, 255 ignored.
        what: its name in error messages.

    Returns:
        (H, W), uint8, contiguous.

    Raises:
        DataError: if it is not such an array or holds other values.
    """
    values = _array(array, what)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or not values.size:
        raise DataError(f"{what} has shape {np.shape(array)}; allowed is (H, W), 1 on the object and 0 elsewhere.")
    if values.dtype.kind not in "bui":
        raise DataError(
            f"{what} is of type {values.dtype}; allowed are bool and whole numbers. Cut probabilities yourself: "
            "(mask > 0.5)."
        )
    present = np.unique(values)
    if not np.isin(present, _LABELS).all():
        raise DataError(
            f"{what} holds the values {present[:8].tolist()}; allowed are 0, 1 on the object and 255 where ignored. "
            "Choose the object's value: (mask == VALUE)."
        )
    return np.ascontiguousarray(values, dtype=np.uint8)


def is_pair(image: Any, mask: Any) -> bool:
    """Return whether a data set reader returned an image and a mask of the right kind.

    Args:
        image: should be RGB, (H, W, 3), uint8.
        mask: should be class indices, (H, W), uint8.
    """
    arrays = isinstance(image, np.ndarray) and isinstance(mask, np.ndarray)
    are_uint8 = arrays and image.dtype == np.uint8 == mask.dtype
    return bool(are_uint8 and image.ndim == 3 and image.shape[2] == 3 and mask.ndim == 2)


def _array(array: Any, what: str) -> Any:
    if not isinstance(array, np.ndarray):
        raise DataError(f"{what} is a {type(array).__name__}; allowed is a numpy array: np.asarray(...).")
    return array


def _conversion(pixels: Any) -> str:
    if pixels.dtype == np.uint16:
        return " Scale 16 bits: (image >> 8).astype(np.uint8)."
    if pixels.dtype.kind == "f":
        return " Scale values of 0 to 1: (255 * image).round().astype(np.uint8)."
    return ""
