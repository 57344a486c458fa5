"""The interface of a data set (ids, images, masks and classes) and functions shared by its readers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from fss.data.reading.image_cache import ImageCache
from fss.data.reading.image_files import check_images, image_endings
from fss.data.reading.images import read_image
from fss.data.reading.masks import UInt8
from fss.data.reading.pairs import read_mask_of
from fss.data.sources.folds import FoldClasses
from fss.errors import DataError

ListSplit = Literal["train", "val"]
"""The two image lists of a data set; the classes decide which episodes are drawn from them."""

Facts = dict[str, str | int]
"""What a result file records about its data set."""


@runtime_checkable
class SegmentationSource(Protocol):
    """A segmentation data set on disk. It holds only paths and small tables, so it is cheap to send to workers.

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
            DataError: if the fold does not exist.
        """
        ...

    def check(self, split: ListSplit, images: bool = True) -> None:
        """Check that the folders and lists of a split exist; takes less than a second.

        Args:
            split: which image list.
            images: whether the images are needed too, not only the masks.

        Raises:
            DataError: if something is missing; the message names it, the expected layout and the command that makes it.
        """
        ...

    def prepare(self, split: ListSplit) -> None:
        """Derive the masks of a split if the data set has none; does nothing if they exist."""
        ...

    def ids(self, split: ListSplit) -> list[str]:
        """Return image ids in list order.

        Raises:
            DataError: if the list is missing, empty or holds an id twice.
        """
        ...

    def facts(self) -> Facts:
        """Return plain facts for the result file: mask rule, lists and origin."""
        ...

    def image_path(self, image_id: str) -> Path:
        """Return the path of an image."""
        ...

    def mask_path(self, image_id: str) -> Path:
        """Return the path of a mask."""
        ...

    def image(self, image_id: str) -> UInt8:
        """Return an image, RGB, (H, W, 3), uint8.

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


ContentFiles = tuple[list[Path], list[Path]]
"""Files that determine the masks of a split, and its images."""


class ImageFiles(ABC):
    """Reads images and masks from the paths that a subclass returns."""

    cache: ImageCache | None = None

    @property
    def rule(self) -> str:
        """How masks are derived from their files; empty if there is no choice."""
        return ""

    def content_files(self, split: ListSplit) -> ContentFiles | None:
        """Return the files that make up a split, without deriving any.

        Args:
            split: which image list.

        Returns:
            Files that determine the masks, and the images, each in a fixed order; None if the split has no list.
        """
        return _listed_files(self, split)

    def keep_images(self, limit: int) -> None:
        """Cache decoded images and masks in memory from now on; their content stays the same.

        Args:
            limit: bytes per data loader worker; 0 disables the cache.
        """
        self.cache = ImageCache(limit) if limit else None

    @abstractmethod
    def image_path(self, image_id: str) -> Path:
        """Return the path of an image."""

    @abstractmethod
    def mask_path(self, image_id: str) -> Path:
        """Return the path of a mask."""

    def image(self, image_id: str) -> UInt8:
        """Return an image, RGB, (H, W, 3), uint8.

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
            return read_mask_of(self.image_path(image_id), self.mask_path(image_id))
        return self.cache.get(
            "mask", image_id, lambda: read_mask_of(self.image_path(image_id), self.mask_path(image_id))
        )


def content_files(source: SegmentationSource, split: ListSplit) -> ContentFiles | None:
    """Return the files that make up a split of any data set.

    Args:
        source: the data set.
        split: which image list.

    Returns:
        Files that determine the masks, and the images; None if the split has no list.
    """
    return source.content_files(split) if isinstance(source, ImageFiles) else _listed_files(source, split)


def _listed_files(source: Any, split: ListSplit) -> ContentFiles | None:
    try:
        ids = source.ids(split)
    except DataError:
        if split == "val":
            raise
        return None
    return [source.mask_path(i) for i in ids], [source.image_path(i) for i in ids]


def existing_folder(folder: Path, why: str) -> None:
    """Check that a folder exists.

    Args:
        folder: the folder.
        why: end of the error message: what belongs there and how to get it.

    Raises:
        DataError: if it does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. {why}")


def check_photographs(source: ImageFiles, ids: Sequence[str], folder: Path) -> None:
    """Check that the images of a list exist, so that a training does not stop at a missing one hours later.

    Args:
        source: returns the path of each image.
        ids: image ids.
        folder: where most of them are; it is listed once, which is faster than checking every file.

    Raises:
        DataError: if some are missing, or an id has several.
    """
    check_images(folder, ids, source.image_path, image_endings(folder, source.mask_path("x").parent))


def mask_paths(source: SegmentationSource, ids: Sequence[str]) -> list[Path]:
    """Return the mask files of some images.

    Args:
        source: the data set.
        ids: image ids.
    """
    return [source.mask_path(i) for i in ids]
