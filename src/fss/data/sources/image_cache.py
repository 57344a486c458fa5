"""Decoded pictures kept in memory, up to a limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fss.data.sources.masks import UInt8


class PictureCache:
    """The pictures and masks read last, as arrays that nobody may write to.

    Every loader process has its own: with W workers the limit holds W times, and a picture is decoded up to W times.
    It starts empty in each, also where it is copied into another process.

    Args:
        limit: bytes of all arrays together; one that is larger alone is never kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._kept: OrderedDict[tuple[str, str], UInt8] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Send the limit alone to another process."""
        return {"limit": self.limit, "size": 0, "_kept": OrderedDict()}

    def __len__(self) -> int:
        """Return the number of arrays kept."""
        return len(self._kept)

    def get(self, kind: str, name: str, read: Callable[[], UInt8]) -> UInt8:
        """Return an array, read only if it is not there.

        Args:
            kind: what it shows; a picture and its mask have one name.
            name: its id.
            read: decodes it; its errors pass through.

        Returns:
            The array, read-only.
        """
        key = (kind, name)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        array = read()
        array.setflags(write=False)
        if array.nbytes <= self.limit:
            self._kept[key] = array
            self.size += array.nbytes
        while self.size > self.limit:
            self.size -= self._kept.popitem(last=False)[1].nbytes
        return array
