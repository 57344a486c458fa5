"""Read lists of image ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fss.errors import DataError

_SEPARATOR = re.compile(r"[\s,;]+")
_ENDINGS = {"jpg", "jpeg", "png"}
_FLAGS = {"1": True, "-1": False}
_ALLOWED = (
    "Allowed are one image id per line, an id with its mask (JPEGImages/ID.jpg SegmentationClassAug/ID.png), or VOC's "
    "form of ImageSets/Main (ID 1 for images of the set, ID -1 for others)"
)


def read_id_list(path: Path, masks: str | None = None) -> list[str]:
    r"""Read image ids from a text file.

    A line is an id, an image file with or without its mask, as in the released lists
    (``JPEGImages/ID.jpg SegmentationClassAug/ID.png``; folders are ignored, ``\`` counts as ``/``), or an id with 1
    or -1, as in VOC's ``ImageSets/Main``, where -1 means that the image is not in the set. Empty lines are skipped.

    Args:
        path: list file, UTF-8.
        masks: name of the folder that masks are read from; a list that names masks in another folder is rejected.
            None allows any folder.

    Raises:
        DataError: if the file is missing, not text, empty, of another form, or names an image twice.
    """
    rows = [_SEPARATOR.split(line.strip()) for line in _text(path).splitlines() if line.strip()]
    flagged = [row for row in rows if len(row) == 2 and re.fullmatch(r"[-+]?\d+", row[1])]
    ids = _flagged_ids(path, rows) if flagged else [_row_id(path, row, masks) for row in rows]
    if not ids:
        raise DataError(f"The id list {path} is empty. Give a text file with one image id per line.")
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f"The id list {path} names {twice} more than once. Remove the repeated lines.")
    return ids


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Cannot read the id list {path}: {getattr(error, 'strerror', None) or error}. Give a text file (UTF-8) "
            "with one image id per line."
        ) from error


def _flagged_ids(path: Path, rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the ids that VOC's form of ``ImageSets/Main`` marks as members."""
    ids = []
    for row in rows:
        if len(row) != 2 or row[1] not in _FLAGS:
            raise DataError(
                f"The id list {path} has the line '{' '.join(row)}' among lines of an id and a number. {_ALLOWED}. VOC "
                "marks images with difficult objects alone by 0: give them 1 or -1."
            )
        if _FLAGS[row[1]]:
            ids.append(_stem(row[0]))
    if not ids:
        raise DataError(f"The id list {path} marks every image with -1, as not in the set. {_ALLOWED}.")
    return ids


def _row_id(path: Path, row: Sequence[str], masks: str | None) -> str:
    name = _stem(row[0])
    if len(row) == 1:
        return name
    mask = row[1].replace("\\", "/")
    if len(row) > 2 or _stem(mask) != name or mask.rpartition(".")[2].lower() not in _ENDINGS:
        raise DataError(
            f"The id list {path} has the line '{' '.join(row)}', of which only a part would be read. {_ALLOWED}."
        )
    folder = mask.rpartition("/")[0].rpartition("/")[2]
    if masks is not None and folder not in ("", masks):
        raise DataError(
            f"The id list {path} names masks in {folder}, but masks are read from {masks}. Point data.masks to the "
            "folder that is meant, or remove the second column."
        )
    return name


def _stem(word: str) -> str:
    name = word.replace("\\", "/").rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending.lower() in _ENDINGS else name
