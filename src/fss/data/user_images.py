"""Photographs and masks of a user's own, in any size and from any camera or drawing program."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fss.data.sources.masks import UInt8
from fss.errors import DataError

_VOID = 255


def read_own_image(path: Path) -> UInt8:
    """Read a photograph as a viewer shows it: turned as its EXIF note says.

    Args:
        path: any format that Pillow reads.

    Returns:
        RGB, (H, W, 3), uint8.

    Raises:
        DataError: if it is missing, damaged or no image.
    """
    with _opened(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def read_own_mask(path: Path, value: int | None = None) -> UInt8:
    """Read which pixels of a support image belong to the object.

    Black is background. Of several other values one must be named, except that 255 beside a single other value means
    "ignore", as in VOC's masks. Palette images count as indices, colours as one value if they are grey.

    Args:
        path: any format that Pillow reads.
        value: value of the object.

    Returns:
        1 on the object, 255 where ignored, 0 elsewhere, (H, W), uint8.

    Raises:
        DataError: if it is missing or damaged, has real colours, no object, or several values and none is named.
    """
    with _opened(path) as image:
        pixels = _one_channel(path, ImageOps.exif_transpose(image))
    found = [int(v) for v in np.unique(pixels) if v]
    if value is None:
        candidates = found if len(found) == 1 else [v for v in found if v != _VOID]
        if len(candidates) != 1:
            hint = "It is empty: paint the object" if not found else "Say which one is the object with --value"
            raise DataError(f"The mask {path} holds the values {[0, *found][:8]}. {hint}.")
        value = candidates[0]
    elif value not in found:
        raise DataError(f"The mask {path} has no pixel of value {value}; it holds {[0, *found][:8]}.")
    label: UInt8 = (pixels == value).astype(np.uint8)
    if value != _VOID:
        label[pixels == _VOID] = _VOID
    return label


def png(pixels: UInt8) -> bytes:
    """Encode an image.

    Args:
        pixels: RGB (H, W, 3) or grey (H, W).

    Returns:
        Bytes of a PNG file.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        raise DataError(f"There is no image {path}. Check the name.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is damaged or no image ({error}). Give a JPEG or PNG file.") from error
    return image


def _one_channel(path: Path, image: Image.Image) -> UInt8:
    if image.mode in ("L", "P"):
        return np.array(image)
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    pixels = np.array(image.convert("RGB"))
    if (pixels != pixels[..., :1]).any():
        raise DataError(
            f"The mask {path} has colours. Allowed are black and white, grey and palette images: black is "
            "background, any other value the object."
        )
    return pixels[..., 0]
