"""A least-recently-used cache of feature maps with a memory limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from cachetools import LRUCache
from torch import Tensor

Key = tuple[str, ...]
"""Kind of maps, image id, and class if a mask was applied."""


@dataclass(frozen=True)
class Maps:
    """Feature maps of one image.

    Attributes:
        stages: stage -> (C, h, w).
        taps: stage -> one (C, h, w) per block.
        encoding: the head's encoding of the image, by name.
    """

    stages: Mapping[int, Tensor]
    taps: Mapping[int, list[Tensor]] = field(default_factory=dict)
    encoding: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        maps = chain(self.stages.values(), *self.taps.values(), self.encoding.values())
        return sum(m.numel() * m.element_size() for m in maps)

    def joined(self, other: Maps) -> Maps:
        """Return the union with other maps.

        Args:
            other: maps of other stages.
        """
        return Maps({**self.stages, **other.stages}, {**self.taps, **other.taps})


class MapCache(LRUCache[Key, Maps]):
    """Keeps maps up to a total size.

    Maps of the kind ``query`` are evicted first: episodes are ordered by query where possible, so a query's own maps
    are soon no longer needed. Maps must own their memory, because a view would keep its whole base alive.
    """

    def __init__(self, limit: int) -> None:
        """Start empty.

        Args:
            limit: total size in bytes; larger maps are not kept.
        """
        super().__init__(limit, getsizeof=lambda maps: maps.bytes)
        self._queries: dict[Key, None] = {}

    def put(self, key: Key, maps: Maps) -> None:
        """Keep maps if they fit.

        Args:
            key: key of the maps.
            maps: the maps.
        """
        if maps.bytes <= self.maxsize:
            self[key] = maps

    def __setitem__(self, key: Key, maps: Maps) -> None:
        """Keep maps, evicting others if there is no room."""
        super().__setitem__(key, maps)
        if key[0] == "query":
            self._queries[key] = None

    def __delitem__(self, key: Key) -> None:
        """Remove maps."""
        super().__delitem__(key)
        self._queries.pop(key, None)

    def popitem(self) -> tuple[Key, Maps]:
        """Evict the maps of the latest query, or else the least recently used ones."""
        if not self._queries:
            return super().popitem()
        key = next(reversed(self._queries))
        return key, self.pop(key)
