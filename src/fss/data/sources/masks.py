"""Read masks as class indices or histograms, and images as RGB."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from fss.data.sources.derived_files import missing_files_error
from fss.errors import DataError

UInt8 = npt.NDArray[np.uint8]

_SCALED = ("L;2", "L;4")  # grey PNGs of 2 and 4 bits, whose values Pillow stretches to 0..255


def read_mask(path: Path) -> UInt8:
    """Read a mask as class indices; palette and grey files give the same values.

    Args:
        path: single-channel image of 8 bits per pixel, or palette image of at most 8.

    Returns:
        indices, (H, W), uint8; 255 marks ignored pixels.

    Raises:
        DataError: if the file is missing, truncated or has colour channels.
    """
    try:
        with Image.open(path) as image:
            _check_mode(image, path)
            return np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def mask_histogram(path: Path) -> list[int]:
    """Count the pixels of every value 0..255 of a mask.

    Args:
        path: as in :func:`read_mask`.

    Raises:
        DataError: as :func:`read_mask`.
    """
    try:
        with Image.open(path) as image:
            _check_mode(image, path)
            return image.histogram()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def read_image(path: Path) -> UInt8:
    """Read an image.

    Args:
        path: JPEG or any other format that OpenCV reads.

    Returns:
        RGB, (H, W, 3), uint8, decoded by OpenCV as in the released code; not rotated by EXIF, as masks are not.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise _unreadable(path, error) from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None or _truncated_jpeg(data):
        raise DataError(f"The image {path} is damaged or no image. Unpack or copy it again.")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _truncated_jpeg(data: UInt8) -> bool:
    if data[:2].tobytes() != b"\xff\xd8" or data[-2:].tobytes() == b"\xff\xd9":
        return False
    return b"\xff\xd9" not in data[data.size // 2 :].tobytes()


def _check_mode(image: Image.Image, path: Path) -> None:
    tiles = getattr(image, "tile", None)  # absent on plain images
    stored = tiles[0][3] if tiles else image.mode
    if image.mode not in ("P", "L") or stored in _SCALED:
        raise DataError(
            f"The mask {path} has mode {image.mode} ({stored}); allowed are 8-bit grey and palette images that "
            "hold class indices. Convert it, or point to the folder of index masks (SegmentationClassAug)."
        )


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return missing_files_error([path], 1, "files")
    return DataError(f"Cannot read {path}: {error}. The file is damaged; unpack or copy it again.")
