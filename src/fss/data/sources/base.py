"""What the rest of the package knows of a data set: ids, images, masks and classes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from fss.data.sources.derived_files import missing_files_error
from fss.data.sources.folds import FoldClasses
from fss.data.sources.image_cache import ImageCache
from fss.data.sources.masks import UInt8, read_image, read_mask
from fss.errors import DataError

ListSplit = Literal["train", "val"]
"""The two image lists of a data set; the classes decide which episodes are drawn from them."""

Facts = dict[str, str | int]
"""What a result file says of the data behind it."""


@runtime_checkable
class SegmentationSource(Protocol):
    """A segmentation data set on disk. It holds paths and small tables only, so workers receive it cheaply.

    Attributes:
        name: short name, also written into episode lists.
        root: folder of the data set.
    """

    name: str
    root: Path

    @property
    def class_names(self) -> dict[int, str]:
        """Class id -> name, ascending."""
        ...

    def fold(self, fold: int) -> FoldClasses:
        """Return base and novel class ids of a fold.

        Raises:
            DataError: if there is no such fold.
        """
        ...

    def check(self, split: ListSplit, images: bool = True) -> None:
        """Look for the folders and lists of a split, within a second.

        Args:
            split: which image list.
            images: whether the photographs are needed too, not only masks.

        Raises:
            DataError: naming what is missing, the layout expected and the command that makes it.
        """
        ...

    def prepare(self, split: ListSplit) -> None:
        """Derive the masks of a split if the data set comes without; does nothing the second time."""
        ...

    def ids(self, split: ListSplit) -> list[str]:
        """Return image ids in list order.

        Raises:
            DataError: if the list is missing, empty or holds an id twice.
        """
        ...

    def facts(self) -> Facts:
        """Return plain facts for the result file: rules of the masks, lists, and where all of it comes from."""
        ...

    def image_path(self, image_id: str) -> Path:
        """Return the file of a photograph."""
        ...

    def mask_path(self, image_id: str) -> Path:
        """Return the file of a mask."""
        ...

    def image(self, image_id: str) -> UInt8:
        """Return a photograph, RGB, (H, W, 3), uint8.

        Raises:
            DataError: if it is missing or damaged.
        """
        ...

    def mask(self, image_id: str) -> UInt8:
        """Return class indices, (H, W), uint8, 255 ignored.

        Raises:
            DataError: if it is missing or damaged.
        """
        ...


class ImageFiles(ABC):
    """Reads images and masks from wherever a data set says they lie."""

    cache: ImageCache | None = None

    def keep_images(self, limit: int) -> None:
        """Keep decoded images and masks in memory from now on; what is read stays the same.

        Args:
            limit: bytes, in each loader process; 0 keeps none.
        """
        self.cache = ImageCache(limit) if limit else None

    @abstractmethod
    def image_path(self, image_id: str) -> Path:
        """Return the file of a photograph."""

    @abstractmethod
    def mask_path(self, image_id: str) -> Path:
        """Return the file of a mask."""

    def image(self, image_id: str) -> UInt8:
        """Return a photograph, RGB, (H, W, 3), uint8.

        Args:
            image_id: image id.

        Raises:
            DataError: if it is missing or damaged.
        """
        if self.cache is None:
            return read_image(self.image_path(image_id))
        return self.cache.get("image", image_id, lambda: read_image(self.image_path(image_id)))

    def mask(self, image_id: str) -> UInt8:
        """Return class indices, (H, W), uint8, 255 ignored.

        Args:
            image_id: image id.

        Raises:
            DataError: if it is missing or damaged.
        """
        if self.cache is None:
            return read_mask(self.mask_path(image_id))
        return self.cache.get("mask", image_id, lambda: read_mask(self.mask_path(image_id)))


def read_id_list(path: Path) -> list[str]:
    """Read image ids from a text file.

    A line is an id, or the released form ``JPEGImages/ID.jpg SegmentationClassAug/ID.png`` (any folders in front
    are ignored). Empty lines are skipped.

    Args:
        path: the list.

    Raises:
        DataError: if the file is missing, not text, empty, or names an image twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Cannot read the id list {path}: {getattr(error, 'strerror', None) or error}. Give a text file with one "
            "image id per line."
        ) from error
    ids = [_line_id(line) for line in lines if line.strip()]
    if not ids:
        raise DataError(f"The id list {path} is empty. Give a text file with one image id per line.")
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f"The id list {path} names {twice} more than once. Remove the repeated lines.")
    return ids


def existing_folder(folder: Path, why: str) -> None:
    """Check that a folder exists.

    Args:
        folder: where to look.
        why: the end of the error: what belongs there and how to get it.

    Raises:
        DataError: if there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. {why}")


def check_photographs(source: ImageFiles, ids: Sequence[str], folder: Path) -> None:
    """Check that the photographs of a list are there, so that a training does not stop at a missing one hours later.

    Args:
        source: knows where each one lies.
        ids: image ids.
        folder: where most of them lie; it is listed once, which is faster than asking for every file.

    Raises:
        DataError: if some are missing.
    """
    present = set(os.listdir(folder))
    rest = [source.image_path(i) for i in ids if f"{i}.jpg" not in present]
    missing = [path for path in rest if not path.is_file()]
    if missing:
        raise missing_files_error(missing, len(ids), "photographs")


def mask_paths(source: SegmentationSource, ids: Sequence[str]) -> list[Path]:
    """Return the mask files of some images.

    Args:
        source: the data set.
        ids: image ids.
    """
    return [source.mask_path(i) for i in ids]


def _line_id(line: str) -> str:
    name = line.split()[0].rsplit("/", 1)[-1]
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending.lower() in {"jpg", "jpeg", "png"} else name
