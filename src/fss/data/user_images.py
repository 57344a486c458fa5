"""Read a user's own images and masks, of any size and from any camera or drawing program."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fss.data.reading.images import read_image
from fss.data.reading.masks import UInt8, check_file
from fss.data.reading.pairs import as_shown
from fss.errors import DataError

_VOID = 255
_LARGEST_CLASS = 100  # largest value that may be a class id beside 255, as in VOC and COCO; a trimap has larger ones
_GREY_STEP = {"L;2": 85, "L;4": 17}  # Pillow stretches the values of these PNG files to 0..255


def read_support(image: Path, mask: Path, value: int | None = None) -> tuple[UInt8, UInt8]:
    """Read a support image and the mask of its object.

    Args:
        image: as in :func:`fss.data.reading.images.read_image`.
        mask: as in :func:`read_own_mask`; drawn on the image either rotated by its EXIF orientation or as stored.
        value: value of the object in the mask.

    Returns:
        RGB (H, W, 3) and 1 on the object, 255 where ignored, 0 elsewhere, (H, W), uint8.

    Raises:
        DataError: if one of them cannot be used, their sizes differ, or the mask's orientation is ambiguous.
    """
    pixels = read_image(image)
    label = as_shown(read_own_mask(mask, value), mask, image)
    if pixels.shape[:2] != label.shape:
        raise DataError(
            f"The image {image} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its mask {mask} {label.shape[1]} x "
            f"{label.shape[0]}. They must be equal: draw the mask on this image."
        )
    return pixels, label


def read_own_mask(path: Path, value: int | None = None) -> UInt8:
    """Read the object mask of a support image.

    0 is background. If the mask has several other values, ``value`` must name the object's, except that 255 next to a
    single class id of at most 100 means "ignore", as in VOC's masks. Palette images are read as indices, or as grey
    levels if all their colours are grey and ``value`` is not given; RGB images must be grey.

    Args:
        path: any lossless format that Pillow reads, without transparent pixels.
        value: value of the object.

    Returns:
        1 on the object, 255 where ignored, 0 elsewhere, (H, W), uint8.

    Raises:
        DataError: if it is missing, damaged or lossy, has colours or transparent pixels, no object, or several values
            of which none is named.
    """
    pixels = _values(path, by_colour=value is None)
    found = [int(v) for v in np.unique(pixels)]
    if value is None:
        value = _object_value(path, found)
    elif value not in found:
        raise DataError(f"The mask {path} has no pixel of value {value}; it holds {found[:8]}.")
    label: UInt8 = (pixels == value).astype(np.uint8)
    if value not in (0, _VOID) and found[-1] <= _VOID:
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


def _object_value(path: Path, found: list[int]) -> int:
    """Return the one value that can only be the object's."""
    values = [v for v in found if v]
    if len(values) == 1:
        return values[0]
    if len(values) == 2 and values[1] == _VOID and values[0] <= _LARGEST_CLASS:
        return values[0]
    if not values:
        hint = "It is empty: paint the object."
    elif len(values) == 2 and values[1] == _VOID:
        hint = (
            f"Say which one is the object with --value: {_VOID} if this is a trimap, where {values[0]} is unknown, "
            f"{values[0]} if {_VOID} marks pixels to ignore."
        )
    else:
        hint = (
            "Say which one is the object with --value. If the mask is black and white with soft edges, cut it at "
            f"half: magick {path.name} -threshold 50% new.png"
        )
    raise DataError(f"The mask {path} holds the values {[0, *values][:8]}. {hint}")


def _values(path: Path, by_colour: bool) -> Any:
    """Return the values of a mask, rotated by its EXIF orientation, (H, W), integer."""
    try:
        with Image.open(path) as image:
            check_file(image, path)
            stored = str(image.tile[0][3]) if image.tile else image.mode
            image.load()
            _check_opaque(image, path)
            return _one_channel(ImageOps.exif_transpose(image), stored, path, by_colour)
    except FileNotFoundError as error:
        raise DataError(f"There is no mask {path}. Check the name.") from error
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"The mask {path} is damaged or no image ({error}). Give a PNG file.") from error


def _check_opaque(image: Image.Image, path: Path) -> None:
    """Reject transparent pixels, which some programs use for the object and others for the background."""
    if "transparency" not in image.info and image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return
    if image.mode.startswith("I") or image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise DataError(
            f"The mask {path} has transparent pixels. Save it without transparency: black on the background, white on "
            "the object. If the object is what is opaque: "
            f"magick {path.name} -alpha extract -threshold 50% new.png"
        )


def _one_channel(image: Image.Image, stored: str, path: Path, by_colour: bool) -> Any:
    if image.mode in ("1", "L"):
        return np.array(image).astype(np.uint8) // _GREY_STEP.get(stored, 1)
    if image.mode == "P":
        return _indices(image, path, by_colour)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return np.array(image).astype(np.int64)
    if image.mode == "F" or ";16" in stored:
        raise DataError(
            f"The mask {path} is stored as {image.mode} ({stored}), whose values would be rounded. Save it as an "
            "8-bit grey PNG."
        )
    pixels = np.array(image.convert("RGB"))
    if (pixels != pixels[..., :1]).any():
        raise DataError(
            f"The mask {path} has colours. Allowed are black and white, grey and palette images: black is "
            "background, any other value the object."
        )
    return pixels[..., 0]


def _indices(image: Image.Image, path: Path, by_colour: bool) -> UInt8:
    """Return the indices of a palette image, or its grey levels if all its colours are grey and distinct."""
    indices: UInt8 = np.array(image)
    used = np.unique(indices)
    palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    if not by_colour or used[-1] >= len(palette):
        return indices
    colours = palette[used]
    if (colours == colours[:, :1]).all() and len(np.unique(colours[:, 0])) == len(used):
        grey: UInt8 = palette[indices, 0]
        return grey
    black = used[~colours.any(axis=1)]
    if len(black) and 0 not in black and 0 in used:
        raise DataError(
            f"The palette of the mask {path} has black at {black[0]} and the colour {palette[0].tolist()} at 0, so "
            "that its background is not clear. Say which index is the object with --value, or save a black and white "
            "PNG."
        )
    return indices
