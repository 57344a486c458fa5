"""Feature maps of images within a limit of memory; what was used longest ago goes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from cachetools import LRUCache
from torch import Tensor

Key = tuple[str, ...]
"""Kind of maps, image, and class where a mask was applied."""


@dataclass(frozen=True)
class Maps:
    """What a pass over one image left.

    Attributes:
        stages: stage -> (C, h, w).
        taps: stage -> one (C, h, w) per block.
        encoding: what a head made of it, by name.
    """

    stages: Mapping[int, Tensor]
    taps: Mapping[int, list[Tensor]] = field(default_factory=dict)
    encoding: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Memory of all maps."""
        maps = chain(self.stages.values(), *self.taps.values(), self.encoding.values())
        return sum(m.numel() * m.element_size() for m in maps)

    def joined(self, other: Maps) -> Maps:
        """Return these maps and others as one.

        Args:
            other: of other stages.
        """
        return Maps({**self.stages, **other.stages}, {**self.taps, **other.taps})


class MapCache(LRUCache[Key, Maps]):
    """Keeps maps until their sum would pass a limit of bytes.

    Maps of the kind ``query`` go first: episodes come ordered by query where nothing forbids it, so that a query's own
    maps are soon of no more use. Maps must own their memory: a view would keep all of its base.
    """

    def __init__(self, limit: int) -> None:
        """Start empty.

        Args:
            limit: bytes; maps larger than this are not kept at all.
        """
        super().__init__(limit, getsizeof=lambda maps: maps.bytes)
        self._queries: dict[Key, None] = {}

    def put(self, key: Key, maps: Maps) -> None:
        """Keep maps if they fit.

        Args:
            key: under which they are found again.
            maps: to keep.
        """
        if maps.bytes <= self.maxsize:
            self[key] = maps

    def __setitem__(self, key: Key, maps: Maps) -> None:
        """Keep maps; others go if there is no room."""
        super().__setitem__(key, maps)
        if key[0] == "query":
            self._queries[key] = None

    def __delitem__(self, key: Key) -> None:
        """Forget maps."""
        super().__delitem__(key)
        self._queries.pop(key, None)

    def popitem(self) -> tuple[Key, Maps]:
        """Forget a query's maps, the latest first, or else what was used longest ago."""
        if not self._queries:
            return super().popitem()
        key = next(reversed(self._queries))
        return key, self.pop(key)
