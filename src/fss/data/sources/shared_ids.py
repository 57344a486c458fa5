"""A list of image ids that forked processes share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt


class Names(Sequence[str]):
    """A list of image ids: an array of bytes, and the rows of it that belong to the list.

    Reading a Python string writes its reference count, so a forked data loader worker would end up with a copy of every
    id it has used; an array is only read.

    Args:
        stored: UTF-8 bytes, (M,); several lists may share the array.
        rows: rows of ``stored`` in list order, (N,).
    """

    __slots__ = ("_rows", "_stored")

    def __init__(self, stored: npt.NDArray[np.bytes_], rows: npt.NDArray[np.int32]) -> None:
        self._stored, self._rows = stored, rows

    @classmethod
    def of(cls, ids: Iterable[str]) -> Names:
        """Store ids.

        Args:
            ids: the ids in order.
        """
        stored = np.array([i.encode() for i in ids], dtype=np.bytes_)
        return cls(stored, np.arange(len(stored), dtype=np.int32))

    def pick(self, places: npt.NDArray[np.integer]) -> Names:
        """Return some of the ids without copying them.

        Args:
            places: positions in this list.
        """
        return Names(self._stored, self._rows[places])

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Names: ...
    def __getitem__(self, place: int | slice) -> str | Names:
        """Return one id, or a list of some."""
        if isinstance(place, slice):
            return Names(self._stored, self._rows[place])
        return bytes(self._stored[self._rows[place]]).decode()

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        """Compare with any other sequence of ids."""
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the first few ids."""
        return f"Names({', '.join(self[:3])}{', ...' if len(self) > 3 else ''}; {len(self)})"
