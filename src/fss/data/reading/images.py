"""Read images, for training, testing and prediction alike."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fss.data.reading.masks import UInt8
from fss.errors import DataError

_HEAD = 1 << 16  # first bytes of a JPEG, which hold its EXIF data if it has any
_ORIENTATION = 0x0112  # EXIF tag
_UNREADABLE_NOTE = (SyntaxError, ValueError, KeyError, TypeError, IndexError, OverflowError, OSError, struct.error)


def read_image(path: Path) -> UInt8:
    """Read an image, rotated according to its EXIF orientation.

    JPEG files are decoded by OpenCV, as in the released code, other files by Pillow. Of 16 bits per channel the upper 8
    are kept. Grey, palette and CMYK images become RGB.

    Args:
        path: JPEG, PNG or another format of Pillow.

    Returns:
        RGB, (H, W, 3), uint8.

    Raises:
        DataError: if the file is missing or damaged, or has transparent pixels, several images or values without a
            fixed white.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError as error:
        raise DataError(f"There is no image {path}. Check the name, or complete the data set.") from error
    except OSError as error:
        raise DataError(
            f"Cannot read {path}: {error.strerror or error}. Check the file and its permissions."
        ) from error
    if _is_jpeg(data[:2].tobytes()):
        pixels = _decoded_jpeg(data, path)
        turn = _jpeg_orientation(data)
    else:
        pixels, turn = _decoded(io.BytesIO(data.tobytes()), path)
    return turned(pixels, turn)


def orientation(path: Path) -> tuple[int, tuple[int, int]]:
    """Return the EXIF orientation of an image and its stored size.

    Args:
        path: as in :func:`read_image`.

    Returns:
        Orientation 1 to 8 (1: not rotated), and (height, width) before rotation; the size is (0, 0) if the orientation
        is 1 or the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if _is_jpeg(head) and not _may_be_turned(head):
                return 1, (0, 0)
            with Image.open(file) as image:
                turn, (width, height) = _orientation_of(image), image.size
                swapped = image.format == "TIFF" and turn > 4  # Pillow gives the turned size of these
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1, (0, 0)
    if turn == 1:
        return 1, (0, 0)
    return turn, (width, height) if swapped else (height, width)


def turned(pixels: UInt8, turn: int) -> UInt8:
    """Rotate an image or a mask according to an EXIF orientation.

    Args:
        pixels: as stored, (H, W) or (H, W, 3).
        turn: EXIF orientation, 1 to 8; from 5 on height and width are swapped.

    Returns:
        The rotated array, contiguous.
    """
    if turn == 1:
        return pixels
    if turn > 4:
        pixels = pixels.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _is_jpeg(head: bytes) -> bool:
    return head[:2] == b"\xff\xd8"


def _may_be_turned(head: bytes) -> bool:
    return b"Exif" in head or b"tiff:Orientation" in head


def _jpeg_orientation(data: UInt8) -> int:
    if not _may_be_turned(data[:_HEAD].tobytes()):
        return 1
    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            return _orientation_of(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1


def _orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, as in viewers, if it is unreadable or not in 1 to 8."""
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except _UNREADABLE_NOTE:
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def _decoded_jpeg(data: UInt8, path: Path) -> UInt8:
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:  # more pixels than OpenCV allows
        raise _damaged(path, error.err) from error
    if image is None or _truncated_jpeg(data):
        raise _damaged(path, "the JPEG ends early or cannot be decoded")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _truncated_jpeg(data: UInt8) -> bool:
    if data[-2:].tobytes() == b"\xff\xd9":
        return False
    return b"\xff\xd9" not in data[data.size // 2 :].tobytes()


def _decoded(file: io.BytesIO, path: Path) -> tuple[UInt8, int]:
    """Return the unrotated pixels of a file that is not a JPEG, and its orientation."""
    try:
        with Image.open(file) as image:
            count = getattr(image, "n_frames", 1)
            image.load()  # rotates TIFF files, which have no orientation afterwards
            if count > 1:
                raise DataError(
                    f"The image {path} holds {count} pictures, as an animation or a stack does. Save the one you "
                    "mean as a JPEG or PNG file."
                )
            _check_opaque(image, path)
            return _rgb(image, path), _orientation_of(image)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise _damaged(path, str(error)) from error


def _check_opaque(image: Image.Image, path: Path) -> None:
    """Reject transparent pixels, as the colours below them are arbitrary."""
    if "transparency" not in image.info and image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return
    if image.mode.startswith("I") or image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise DataError(
            f"The image {path} has transparent pixels, which have no colour. Lay it over a background and save it "
            f"without transparency, for example: magick {path.name} -background white -flatten new.png"
        )


def _rgb(image: Image.Image, path: Path) -> UInt8:
    if image.mode.startswith("I;16"):
        grey = (np.array(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise DataError(
            f"The image {path} holds 32-bit values (mode {image.mode}), of which none is known to be white. Scale it "
            "to 8 or 16 bits per channel and save it as PNG."
        )
    return np.array(image.convert("RGB"))


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"The image {path} is damaged or no image ({why}). Unpack or copy it again; JPEG and PNG files are read."
    )
