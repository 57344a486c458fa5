"""Decoded images kept in memory, up to a limit."""

from __future__ import annotations

from collections.abc import Callable

from cachetools import LRUCache

from fss.data.sources.masks import UInt8


class ImageCache:
    """The images and masks read last, as arrays that nobody may write to.

    Every loader process has its own: with W workers the limit holds W times, and an image is decoded up to W times.
    It starts empty in each, also where it is copied into another process.

    Args:
        limit: bytes of all arrays together; one that is larger alone is never kept.
    """

    def __init__(self, limit: int) -> None:
        self._kept: LRUCache[tuple[str, str], UInt8] = LRUCache(limit, getsizeof=lambda array: array.nbytes)

    def __reduce__(self) -> tuple[type[ImageCache], tuple[int]]:
        """Send the limit alone to another process."""
        return ImageCache, (int(self._kept.maxsize),)

    def __len__(self) -> int:
        """Return the number of arrays kept."""
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes now kept."""
        return int(self._kept.currsize)

    def get(self, kind: str, name: str, read: Callable[[], UInt8]) -> UInt8:
        """Return an array, read only if it is not there.

        Args:
            kind: what it shows; an image and its mask have one name.
            name: its id.
            read: decodes it; its errors pass through.

        Returns:
            The array, read-only.
        """
        key = (kind, name)
        if key in self._kept:
            return self._kept[key]
        array = read()
        array.setflags(write=False)
        if array.nbytes <= self._kept.maxsize:
            self._kept[key] = array
        return array
