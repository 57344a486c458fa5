"""Read a mask in the orientation of its image."""

from __future__ import annotations

from pathlib import Path

from fss.data.reading.images import orientation, turned
from fss.data.reading.masks import UInt8, read_mask
from fss.errors import DataError


def read_mask_of(image: Path, mask: Path) -> UInt8:
    """Read the mask of an image.

    Args:
        image: image file; if it is missing, the mask is read as stored.
        mask: as in :func:`fss.data.reading.masks.read_mask`.

    Returns:
        Class indices, (H, W), uint8, aligned with :func:`fss.data.reading.images.read_image`.

    Raises:
        DataError: if the mask is missing, damaged or of another kind, or its orientation is ambiguous.
    """
    return as_shown(read_mask(mask), mask, image)


def as_shown(values: UInt8, mask: Path, image: Path) -> UInt8:
    """Rotate a mask that was drawn on the stored pixels of an image with an EXIF orientation.

    A mask of the size of the rotated image is kept; one of the size of the stored pixels is rotated.

    Args:
        values: values of the mask, (H, W).
        mask: mask file, for the error message.
        image: image file.

    Returns:
        The mask on the rotated image; unchanged if it fits neither size, which the caller must check.

    Raises:
        DataError: if the mask fits both ways, so that its orientation is ambiguous.
    """
    turn, stored = orientation(image)
    if turn == 1 or values.shape != stored:
        return values
    if turn > 4 and stored[0] != stored[1]:
        return turned(values, turn)
    raise DataError(
        f"The image {image} is stored turned (EXIF orientation {turn}), and its mask {mask} fits it turned "
        "and not turned. Store the image upright and look whether the mask lies on the object, for example: "
        f"magick {image.name} -auto-orient {image.stem}-upright.png"
    )
