"""Stateless sampling: episode i is a pure function of (seed, epoch, split, i). Reads no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from fss.data.episodes.index import ClassIndex
from fss.data.episodes.options import check_least
from fss.errors import DataError

if TYPE_CHECKING:
    from fss.types import Split

_SPLIT_CODE: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
_ORDER, _DRAW, _AUGMENT, _HEAD = 0, 1, 2, 3  # purpose of a random stream, part of its key to keep streams independent


@dataclass(frozen=True)
class Draw:
    """The images of one episode.

    Attributes:
        class_id: id of the class.
        query: image id.
        supports: image ids in sampling order.
    """

    class_id: int
    query: str
    supports: tuple[str, ...]


class DrawSource(Protocol):
    """A stream of episodes, either sampled or read from a list.

    Attributes:
        sampler: name of the rule that drew the episodes.
        class_ids: ids of all classes that occur, ascending.
    """

    @property
    def sampler(self) -> str:
        """Name of the rule that drew the episodes."""
        ...

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Ids of all classes that occur, ascending."""
        ...

    def __len__(self) -> int: ...

    def draw(self, epoch: int, i: int) -> Draw:
        """Return episode ``i`` of an epoch."""
        ...


class RandomStream:
    """Unbiased integers below n from a Philox bit stream.

    Only the raw bits are used: NumPy guarantees them (and SeedSequence) across versions, unlike the methods of
    ``Generator``, so episode lists stay the same when NumPy is updated.

    Args:
        key: integers >= 0 that identify the stream.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.Philox(np.random.SeedSequence(key))

    def below(self, n: int) -> int:
        """Return an integer in [0, n), each equally likely.

        Args:
            n: number of choices, at least 1.
        """
        limit = (1 << 64) - (1 << 64) % n
        while True:
            value = int(self._bits.random_raw())
            if value < limit:
                return value % n

    def permutation(self, n: int) -> npt.NDArray[np.int64]:
        """Return a random order of 0..n-1, (n,).

        Args:
            n: length.
        """
        return np.argsort(self._bits.random_raw(n), kind="stable")


def augment_seed(seed: int, epoch: int, split: Split, i: int, slot: int) -> int:
    """Return the seed of the random transform of one image.

    Args:
        seed: seed of the run.
        epoch: epoch.
        split: which stream.
        i: number of the episode.
        slot: 0 for the query, k for support k in sampling order.
    """
    key = (_AUGMENT, seed, epoch, _SPLIT_CODE[split], i, slot)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def head_seed(seed: int, epoch: int, split: Split, i: int) -> int:
    """Return the seed of the random numbers that a head draws for one episode.

    Args:
        seed: seed of the run, or of its test.
        epoch: epoch; matters in training only.
        split: which stream.
        i: number of the episode.
    """
    key = (_HEAD, seed, epoch if split == "train" else 0, _SPLIT_CODE[split], i)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


@lru_cache(maxsize=4)
def _epoch_order(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return RandomStream(_ORDER, seed, epoch).permutation(n)


@dataclass(frozen=True)
class StatelessEpisodes:
    """Episodes sampled by the released rule (protocol A.3), without state.

    Training permutes the list in every epoch; validation and test follow the list order: episode i has query i mod n,
    and later passes redraw class and supports. The class is uniform among the classes present in the query, without
    an area check. Supports are distinct, differ from the query, and are uniform in the list of the class. The
    supports of fewer shots are the first ones of more shots.

    Attributes:
        sampler: name of the rule.
        index: queries and class lists.
        shot: supports per episode.
        seed: seed of the stream, >= 0.
        split: which stream; streams of different splits are independent.
        length: number of episodes per epoch; None: one per query image.

    Raises:
        DataError: if shot or length is below 1, the seed is negative, or there is no query image.
    """

    index: ClassIndex
    shot: int
    seed: int
    split: Split
    length: int | None = None

    sampler: ClassVar[str] = "stateless"

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_least("shot", self.shot, 1)
        check_least("seed", self.seed, 0)
        if self.length is not None:
            check_least(f"{self.split}_episodes", self.length, 1)
        if not self.index.images:
            raise DataError(
                f"No image of the {self.split} split holds a large enough class. Check the lists, or lower "
                "data.min_area."
            )

    @classmethod
    def novel(cls, index: ClassIndex, shot: int, seed: int, length: int) -> Self:
        """Return test episodes of novel classes.

        Args:
            index: queries and class lists.
            shot: supports per episode.
            seed: seed of the stream.
            length: number of episodes.
        """
        return cls(index, shot, seed, "test", length)

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Ids of the classes drawn, ascending."""
        return self.index.class_ids

    def __len__(self) -> int:
        """Return the number of episodes per epoch."""
        return len(self.index.images) if self.length is None else self.length

    def draw(self, epoch: int, i: int) -> Draw:
        """Return episode ``i`` of an epoch.

        Args:
            epoch: epoch; matters in training only.
            i: number of the episode, 0..len-1.

        Raises:
            DataError: if the class drawn has too few images for the shot.
        """
        index, training = self.index, self.split == "train"
        epoch = epoch if training else 0
        n = len(index.images)
        row = int(_epoch_order(n, self.seed, epoch)[i % n]) if training else i % n
        query = index.images[row]
        stream = RandomStream(_DRAW, self.seed, epoch, _SPLIT_CODE[self.split], i)
        candidates = np.flatnonzero(index.present[row])
        class_id = index.class_ids[int(candidates[stream.below(len(candidates))])]
        supports = _distinct(stream, index.per_class[class_id], query, self.shot)
        return Draw(class_id, query, supports)


def check_enough(images: Sequence[str], query: str, count: int) -> None:
    """Check that an episode's class has enough supports, as drawing would otherwise never end.

    Args:
        images: images of the class.
        query: the query, which is not a support.
        count: supports needed.

    Raises:
        DataError: if there are too few.
    """
    if len(images) < count or (len(images) == count and query in images):
        raise DataError(
            f"shot={count} needs {count} supports besides the query {query}, its class has {len(images)} images. "
            "Lower shot, or leave small classes out with data.small_classes=drop."
        )


def _distinct(stream: RandomStream, images: Sequence[str], query: str, count: int) -> tuple[str, ...]:
    check_enough(images, query, count)
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        image = images[stream.below(len(images))]
        if image != query:
            chosen[image] = None
    return tuple(chosen)
