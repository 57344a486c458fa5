"""Decode VOC 2012 and SBD masks to class indices; sizes are bounded first, and nothing is executed."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import loadmat

from fss.data.reading.masks import UInt8

CLASSES = 20
MOST_PIXELS = 50_000_000
_MOST_BYTES = 1 << 26  # of an unpacked .mat file
_VARIABLE = 15  # MATLAB's type code of a compressed variable


class BadMemberError(ValueError):
    """A file has invalid content; the message says what is wrong."""


def sbd_mask(data: bytes) -> UInt8:
    """Read the class indices of SBD's ``cls/ID.mat``: the field Segmentation of the structure GTcls.

    Args:
        data: bytes of the file.

    Returns:
        indices: (H, W), 0 to 20.

    Raises:
        BadMemberError: if it is not such a file.
    """
    _bound(data)
    try:
        content = loadmat(io.BytesIO(data), variable_names=["GTcls"], verify_compressed_data_integrity=True)
        segmentation: Any = content["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # scipy raises many types for damaged files
        raise BadMemberError(f"it is no SBD file with GTcls.Segmentation ({type(error).__name__}: {error})") from error
    if (
        not isinstance(segmentation, np.ndarray)
        or segmentation.ndim != 2
        or not segmentation.size
        or segmentation.dtype.kind not in "ui"
    ):
        raise BadMemberError("GTcls.Segmentation is no image of whole numbers")
    return _checked(segmentation, CLASSES, void=False)


def voc_mask(data: bytes) -> UInt8:
    """Read the class indices of VOC's ``SegmentationClass/ID.png``, whose palette holds VOC's colours.

    Args:
        data: bytes of the file.

    Returns:
        indices: (H, W), 0 to 20, and 255 on VOC's outlines.

    Raises:
        BadMemberError: if it is not a palette or 8-bit grey PNG of such values.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            check_size(image)
            stored = image.tile[0][3] if image.tile else image.mode
            if image.mode not in ("P", "L") or stored in ("L;2", "L;4"):
                raise BadMemberError(f"its mode is {image.mode} ({stored}) instead of a palette or 8-bit grey")
            return _checked(np.array(image), CLASSES, void=True)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadMemberError(f"it is no readable PNG ({error})") from error


def check_image(data: bytes) -> tuple[tuple[int, int], bool]:
    """Check a JPEG image without decoding it.

    Args:
        data: bytes of the file.

    Returns:
        shape: (H, W).
        whole: whether the JPEG has its end marker.

    Raises:
        BadMemberError: if it is not a JPEG or has more than fifty million pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            check_size(image)
            width, height = image.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadMemberError(f"it is no JPEG image ({error})") from error
    return (height, width), b"\xff\xd9" in data[len(data) // 2 :]


def check_size(image: Image.Image) -> None:
    """Reject an image that is too large for memory.

    Args:
        image: opened, not yet decoded.

    Raises:
        BadMemberError: if it has more than fifty million pixels.
    """
    if image.width * image.height > MOST_PIXELS:
        raise BadMemberError(f"it has {image.width} x {image.height} pixels; allowed are {MOST_PIXELS:,}")


def _checked(indices: Any, classes: int, void: bool) -> UInt8:
    allowed = [*range(classes + 1), *([255] if void else [])]
    invalid = sorted(set(np.unique(indices).tolist()) - set(allowed))
    if invalid:
        ending = " and 255" if void else ""
        raise BadMemberError(f"it holds the value {invalid[0]}; allowed are 0 to {classes}{ending}")
    return np.ascontiguousarray(indices, dtype=np.uint8)


def _bound(data: bytes) -> None:
    """Walk through the variables of a MATLAB 5 file and reject it if it unpacks to too many bytes."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise BadMemberError("it is no MATLAB 5 file")
    total, position = 0, 128
    while position + 8 <= len(data):
        kind, size = struct.unpack(f"{order}II", data[position : position + 8])
        position += 8
        if kind == _VARIABLE:
            total += _unpacked(data[position : position + size], _MOST_BYTES - total)
        else:
            total += size
        if total > _MOST_BYTES:
            raise BadMemberError(f"it unpacks to more than {_MOST_BYTES:,} bytes")
        position += size


def _unpacked(packed: bytes, limit: int) -> int:
    """Return the unpacked size, or a number above the limit."""
    stream = zlib.decompressobj()
    try:
        return len(stream.decompress(packed, limit + 1))
    except zlib.error as error:
        raise BadMemberError(f"it is damaged ({error})") from error
