"""Content hash of a data set, independent of where it is stored."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from fss.data.reading.derived_files import fingerprint, missing_files_error
from fss.data.sources.base import ImageFiles, ListSplit, SegmentationSource, content_files
from fss.errors import DataError

_SPLITS: tuple[ListSplit, ...] = ("train", "val")


def content_id(source: SegmentationSource) -> str:
    """Hash class names, image lists, masks and images of a data set.

    Masks are hashed by content, images only by name and size, as hashing COCO's 20 GB of images would take minutes. The
    hashes of the masks are cached by path, size and times, see :func:`fss.data.reading.derived_files.fingerprint`.

    Args:
        source: the reader.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: if lists, masks or images are missing.
    """
    total = hashlib.sha256(json.dumps([source.name, sorted(source.class_names.items())]).encode())
    total.update(source.rule.encode() if isinstance(source, ImageFiles) else b"")
    for split in _SPLITS:
        files = content_files(source, split)
        if files is None:  # a test alone needs no training list
            total.update(f"\0{split}: none".encode())
            continue
        labels, images = files
        total.update(f"\0{split}: {fingerprint(labels)} {_sizes(images)}".encode())
    return total.hexdigest()


def _sizes(images: Sequence[Path]) -> str:
    """Hash names and sizes of files."""
    total = hashlib.sha256()
    missing = []
    for path in images:
        try:
            total.update(f"{path.name}\0{os.stat(path).st_size}\n".encode())
        except FileNotFoundError:
            missing.append(path)
        except OSError as error:
            raise DataError(f"Cannot read {path}: {error.strerror or error}. Check its permissions.") from error
    if missing:
        raise missing_files_error(missing, len(images), "photographs")
    return total.hexdigest()
