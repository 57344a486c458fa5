"""Cache of decoded images in memory, limited in bytes."""

from __future__ import annotations

from collections.abc import Callable

from cachetools import LRUCache

from fss.data.reading.masks import UInt8


class ImageCache:
    """LRU cache of images and masks, as read-only arrays.

    Every data loader worker has its own: W workers use up to W times the limit and decode an image up to W times. A
    copy sent to another process starts empty.

    Args:
        limit: bytes of all arrays together; a single larger array is never kept.
    """

    def __init__(self, limit: int) -> None:
        self._kept: LRUCache[tuple[str, str], UInt8] = LRUCache(limit, getsizeof=lambda array: array.nbytes)

    def __reduce__(self) -> tuple[type[ImageCache], tuple[int]]:
        """Pickle the limit only."""
        return ImageCache, (int(self._kept.maxsize),)

    def __len__(self) -> int:
        """Return the number of arrays kept."""
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes currently kept."""
        return int(self._kept.currsize)

    def get(self, kind: str, name: str, read: Callable[[], UInt8]) -> UInt8:
        """Return an array, reading it only if it is not in the cache.

        Args:
            kind: ``image`` or ``mask``, which share their ids.
            name: image id.
            read: decodes the array; its errors are passed on.

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
