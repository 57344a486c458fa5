"""Read masks as class indices or histograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fss.data.reading.derived_files import missing_files_error
from fss.errors import DataError

UInt8 = npt.NDArray[np.uint8]

_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_SCALED = ("L;2", "L;4")  # grey PNGs of 2 and 4 bits, whose values Pillow stretches to 0..255


def read_mask(path: Path) -> UInt8:
    """Read a mask as class indices; palette and grey files give the same values.

    Args:
        path: single-channel image of 8 bits per pixel, or palette image of at most 8.

    Returns:
        indices, (H, W), uint8; 255 marks ignored pixels.

    Raises:
        DataError: if the file is missing, truncated, lossy or has colour channels.
    """
    try:
        with Image.open(path) as image:
            _check_mode(image, path)
            return np.array(ImageOps.exif_transpose(image), dtype=np.uint8)
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


def check_file(image: Image.Image, path: Path) -> None:
    """Reject files in which the values of a mask are altered or ambiguous, whatever they stand for.

    Args:
        image: opened file.
        path: path of the file.

    Raises:
        DataError: if the format is lossy or the file holds several images.
    """
    if image.format in _LOSSY:
        raise DataError(
            f"The mask {path} is a {image.format} file, which changes the values at every edge. Save masks as PNG from "
            f"the original; if that is lost and the mask is black and white, cut it at half: magick {path.name} "
            f"-threshold 50% {path.stem}.png"
        )
    count = getattr(image, "n_frames", 1)
    if count > 1:
        raise DataError(f"The mask {path} holds {count} pictures. Save the one you mean as PNG.")


def _check_mode(image: Image.Image, path: Path) -> None:
    check_file(image, path)
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
