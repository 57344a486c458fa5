"""Episodes of novel classes by the rule of HSNet's release on PASCAL, shared by VAT and DCAMA. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from fss.data.episodes.index import ClassIndex
from fss.data.episodes.options import check_least
from fss.data.episodes.stateless import Draw, check_enough
from fss.errors import DataError

NONE = "No image of the validation list holds a large enough class. Check the list, or lower data.min_area."


class PairEpisodes:
    """Every pair of an image and a class in it is a query in turn; supports are drawn with replacement.

    The release lists the pairs in files of its own. Here they follow the image list, the classes of an image in
    ascending order; ``data.min_area=1`` counts every class that an image holds, as the release does. One legacy
    generator of NumPy draws all supports, one after another, and draws again where it meets the query; the same support
    may come twice. All episodes are drawn in advance, so that neither workers nor batches matter.

    Attributes:
        sampler: name of the rule.
        class_ids: ids of the classes drawn, ascending.
        episodes: the draws.
    """

    sampler = "pairs"

    def __init__(self, index: ClassIndex, shot: int, seed: int, length: int) -> None:
        """Draw the episodes.

        Args:
            index: queries and class lists.
            shot: supports per episode.
            seed: seed of the generator; 0 in the release.
            length: number of episodes.

        Raises:
            DataError: if shot or length is below 1, the seed is out of range, there is no query image, or a class has
                no image besides the query.
        """
        check_least("shot", shot, 1)
        check_least("seed", seed, 0)
        check_least("test_episodes", length, 1)
        self.class_ids = index.class_ids
        self.episodes = tuple(self._draws(index, shot, seed, length))

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
            epoch: unused, every pass is the same.
            i: number of the episode, 0..len-1.
        """
        return self.episodes[i]

    def _draws(self, index: ClassIndex, shot: int, seed: int, length: int) -> Iterator[Draw]:
        members = {class_id: set(index.per_class[class_id]) for class_id in index.class_ids}
        pairs = [(image, c) for image in index.images for c in index.class_ids if image in members[c]]
        if not pairs:
            raise DataError(NONE)
        random = np.random.RandomState(seed)
        for i in range(length):
            query, class_id = pairs[i % len(pairs)]
            yield Draw(class_id, query, supports(random, index.per_class[class_id], query, shot))


def supports(random: np.random.RandomState, images: Sequence[str], query: str, shot: int) -> tuple[str, ...]:
    """Draw supports of a class, with replacement, none of them the query.

    Args:
        random: generator of the whole stream.
        images: images of the class.
        query: the query.
        shot: number of supports.

    Raises:
        DataError: if the class has no other image.
    """
    check_enough(images, query, 1)
    chosen: list[str] = []
    while len(chosen) < shot:
        image = images[int(random.choice(len(images), 1, replace=False)[0])]
        if image != query:
            chosen.append(image)
    return tuple(chosen)
