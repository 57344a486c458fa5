"""Read a user's own images and masks, of any size and from any camera or drawing program."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fss.data.sources.masks import UInt8
from fss.errors import DataError

_VOID = 255


def read_own_image(path: Path) -> UInt8:
    """Read an image, rotated according to its EXIF orientation.

    Args:
        path: any format that Pillow reads.

    Returns:
        RGB, (H, W, 3), uint8.

    Raises:
        DataError: if it is missing, damaged or not an image.
    """
    with _opened(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def read_own_mask(path: Path, value: int | None = None) -> UInt8:
    """Read the object mask of a support image.

    0 is background. If the mask has several other values, ``value`` must name the object's, except that 255 next to a
    single other value means "ignore", as in VOC's masks. Palette images are read as indices; RGB images must be grey.

    Args:
        path: any format that Pillow reads.
        value: value of the object.

    Returns:
        1 on the object, 255 where ignored, 0 elsewhere, (H, W), uint8.

    Raises:
        DataError: if it is missing or damaged, has colours, no object, or several values of which none is named.
    """
    with _opened(path) as image:
        pixels = _one_channel(path, ImageOps.exif_transpose(image))
    values = [int(v) for v in np.unique(pixels) if v]
    if value is None:
        candidates = values if len(values) == 1 else [v for v in values if v != _VOID]
        if len(candidates) != 1:
            hint = "It is empty: paint the object" if not values else "Say which one is the object with --value"
            raise DataError(f"The mask {path} holds the values {[0, *values][:8]}. {hint}.")
        value = candidates[0]
    elif value not in values:
        raise DataError(f"The mask {path} has no pixel of value {value}; it holds {[0, *values][:8]}.")
    label: UInt8 = (pixels == value).astype(np.uint8)
    if value != _VOID:
        label[pixels == _VOID] = _VOID
    return label


def png(pixels: UInt8) -> bytes:
    """Encode an image as PNG.

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
