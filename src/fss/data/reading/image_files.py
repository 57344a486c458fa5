"""Find the image file of an id, whatever its extension."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from fss.data.reading.derived_files import missing_files_error
from fss.errors import DataError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
"""Extensions of image files, in search order."""

MASK_ENDINGS = (".png", ".PNG")
"""Extensions of mask files, in search order."""


def file_of(folder: Path, image_id: str, endings: Sequence[str] = IMAGE_ENDINGS) -> Path:
    """Return the file of an id.

    Args:
        folder: folder of the file.
        image_id: name without extension.
        endings: allowed extensions.

    Returns:
        The first file that exists; the path with the first extension if there is none.
    """
    usual = folder / f"{image_id}{endings[0]}"
    if usual.is_file():
        return usual
    others = (folder / f"{image_id}{ending}" for ending in endings[1:])
    return next((path for path in others if path.is_file()), usual)


def stems(folder: Path, endings: Sequence[str] = IMAGE_ENDINGS) -> Counter[str]:
    """Count the files of a folder by id.

    Args:
        folder: listed once; a missing folder counts as empty.
        endings: extensions of the files to count.

    Returns:
        Id -> number of files.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return Counter()
    names_and_endings = (os.path.splitext(name) for name in names)
    return Counter(stem for stem, ending in names_and_endings if ending in endings)


def image_endings(folder: Path, masks: Path) -> tuple[str, ...]:
    """Return the extensions of image files, without those of masks if both are in one folder.

    Args:
        folder: folder of the images.
        masks: folder of the masks.
    """
    return tuple(e for e in IMAGE_ENDINGS if folder != masks or e not in MASK_ENDINGS)


def check_images(
    folder: Path, ids: Sequence[str], path_of: Callable[[str], Path], endings: Sequence[str] = IMAGE_ENDINGS
) -> None:
    """Check that every id of a list has one image file, so that training does not stop at a missing file hours later.

    Args:
        folder: where most files are; it is listed once, which is faster than one look-up per file.
        ids: image ids.
        path_of: returns the path of an id's image; called only for ids without a file in ``folder``.
        endings: extensions of image files.

    Raises:
        DataError: if files are missing, or an id has several.
    """
    present = stems(folder, endings)
    several = [i for i in ids if present[i] > 1]
    if several:
        files = [f"{several[0]}{e}" for e in endings if (folder / f"{several[0]}{e}").is_file()]
        raise DataError(
            f"{len(several)} of {len(ids)} ids have several images in {folder}, first {' and '.join(files)}. Keep one "
            "image per id there; masks belong into a folder of their own."
        )
    elsewhere = [path_of(i) for i in ids if not present[i]]
    missing = [path for path in elsewhere if not path.is_file()]
    if missing:
        raise missing_files_error(missing, len(ids), "photographs (.jpg, .jpeg, .png)")
