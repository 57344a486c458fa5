"""The exact validation and test episodes of the released code (protocol A.3 and D.1). Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Self

import numpy as np

from fss.data.episodes.index import ClassIndex
from fss.data.episodes.options import check_least
from fss.data.episodes.stateless import Draw, check_enough
from fss.errors import DataError

WORKERS = 8
"""Data loader workers in every released configuration; the episodes depend on their number."""

BAM_TEST_SEEDS = (510, 365, 382, 322, 988)
"""Seeds of BAM's test.py and test_GFSS.py: ``numpy.random.RandomState(123).randint(0, 1000, 5)``."""


def base_seeds(seed: int) -> Iterator[int]:
    """Yield the base seed that torch's data loader draws at the start of each pass, the seed of its first worker.

    It is ``torch.empty((), dtype=torch.int64).random_()`` after ``torch.manual_seed(seed)``: two outputs of the
    Mersenne Twister, high word first, without the sign bit.

    Args:
        seed: seed of the generator, >= 0; torch keeps its lower 32 bits.

    Yields:
        One seed per pass over the list.
    """
    bits = np.random.MT19937()
    bits._legacy_seeding(seed & 0xFFFFFFFF)  # the plain seeding that torch uses; NumPy's public one hashes the seed
    while True:
        high, low = (int(word) for word in bits.random_raw(2))
        yield (high << 32 | low) & (1 << 63) - 1


class ReleaseEpisodes:
    """Validation and test episodes as drawn by the releases of SVF and BAM; not available for training.

    Queries cycle through the list. Item i of a pass belongs to worker i mod 8, which seeds ``random`` with the base
    seed of the pass plus its own number and draws class and supports in turn. All episodes are drawn in advance, so
    the actual number of workers, the batch size and the devices have no effect. Unlike in stateless episodes, the
    supports of fewer shots are not the first ones of more shots.

    Attributes:
        sampler: name of the rule.
        class_ids: ids of the classes drawn, ascending.
        episodes: the draws.
    """

    sampler = "release"

    def __init__(self, index: ClassIndex, shot: int, seed: int, length: int) -> None:
        """Draw the episodes.

        Args:
            index: queries and class lists.
            shot: supports per episode.
            seed: seed of the stream, >= 0; 321 in the validations of the releases.
            length: number of episodes.

        Raises:
            DataError: if shot or length is below 1, the seed is negative, there is no query image, or a class
                has too few images for the shot.
        """
        check_least("shot", shot, 1)
        check_least("seed", seed, 0)
        check_least("test_episodes", length, 1)
        if not index.images:
            raise DataError(
                "No image of the validation list holds a large enough class. Check the list, or lower data.min_area."
            )
        self.class_ids = index.class_ids
        self.episodes = tuple(_draws(index, shot, seed, length))

    @classmethod
    def novel(cls, index: ClassIndex, shot: int, seed: int, length: int) -> Self:
        """Return the episodes of novel classes; see the constructor."""
        return cls(index, shot, seed, length)

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.episodes)

    def draw(self, epoch: int, i: int) -> Draw:
        """Return episode ``i``.

        Args:
            epoch: unused, the release seeds every validation alike.
            i: number of the episode, 0..len-1.
        """
        return self.episodes[i]


def _draws(index: ClassIndex, shot: int, seed: int, length: int) -> Iterator[Draw]:
    starts = base_seeds(seed)
    workers: list[Random] = []
    for i in range(length):
        row = i % len(index.images)
        if row == 0:
            start = next(starts)
            workers = [Random(start + w) for w in range(WORKERS)]
        yield _draw(workers[row % WORKERS], index, row, shot)


def _draw(random: Random, index: ClassIndex, row: int, shot: int) -> Draw:
    candidates = np.flatnonzero(index.present[row])
    class_id = index.class_ids[int(candidates[random.randint(1, len(candidates)) - 1])]
    query, images = index.images[row], index.per_class[class_id]
    check_enough(images, query, shot)
    supports: list[str] = []
    for _ in range(shot):
        random.randint(1, len(images))  # the release draws and discards one number here
        image = query
        while image == query or image in supports:
            image = images[random.randint(1, len(images)) - 1]
        supports.append(image)
    return Draw(class_id, query, tuple(supports))
