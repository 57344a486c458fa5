"""Feature maps of pictures within a limit of memory; what was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from torch import Tensor

Key = tuple[str, ...]
"""Kind of maps, picture, and class where a mask was applied."""


@dataclass(frozen=True)
class Maps:
    """What a pass over one picture left.

    Attributes:
        stages: stage -> (C, h, w).
        taps: stage -> one (C, h, w) per block.
        parts: what a head made of it, by name.
    """

    stages: Mapping[int, Tensor]
    taps: Mapping[int, list[Tensor]] = field(default_factory=dict)
    parts: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Memory of all maps."""
        maps = chain(self.stages.values(), *self.taps.values(), self.parts.values())
        return sum(m.numel() * m.element_size() for m in maps)

    def joined(self, other: Maps) -> Maps:
        """Return these maps and others as one.

        Args:
            other: of other stages.
        """
        return Maps({**self.stages, **other.stages}, {**self.taps, **other.taps})


class FeatureCache:
    """Keeps maps until their sum would pass a limit.

    Attributes:
        limit: bytes.
        used: bytes now kept, never above the limit.
    """

    def __init__(self, limit: int) -> None:
        """Start empty.

        Args:
            limit: bytes; maps larger than this are not kept at all.
        """
        self.limit = limit
        self.used = 0
        self._kept: OrderedDict[Key, Maps] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._kept)

    def get(self, key: Key) -> Maps | None:
        """Look maps up.

        Args:
            key: under which they were put.

        Returns:
            The maps, or None if they were never put or have gone.
        """
        maps = self._kept.get(key)
        if maps is not None and not _is_brief(key):
            self._kept.move_to_end(key)
        return maps

    def put(self, key: Key, maps: Maps) -> None:
        """Keep maps; those used longest ago go if there is no room, but first of all those of the kind ``query``.

        Episodes come ordered by query where nothing forbids it, so that a query's own maps are soon of no more use.

        Args:
            key: under which they are found again.
            maps: must own their memory: a view would keep all of its base.
        """
        if maps.bytes > self.limit:
            return
        old = self._kept.pop(key, None)
        self.used -= 0 if old is None else old.bytes
        while self.used + maps.bytes > self.limit:
            self.used -= self._kept.popitem(last=False)[1].bytes
        self._kept[key] = maps
        if _is_brief(key):
            self._kept.move_to_end(key, last=False)
        self.used += maps.bytes


def _is_brief(key: Key) -> bool:
    return key[0] == "query"
