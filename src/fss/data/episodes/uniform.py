"""Episodes of novel classes by the rule of HSNet's release on COCO, shared by VAT and DCAMA. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import numpy as np

from fss.data.episodes.index import ClassIndex
from fss.data.episodes.pairs import NONE, PairEpisodes, supports
from fss.data.episodes.stateless import Draw
from fss.errors import DataError


class UniformEpisodes(PairEpisodes):
    """Class, query and supports are drawn uniformly; the rest is as in :class:`PairEpisodes`.

    Attributes:
        sampler: name of the rule.
    """

    sampler = "uniform"

    @classmethod
    def novel(cls, index: ClassIndex, shot: int, seed: int, length: int) -> Self:
        """Return the episodes of novel classes; see the constructor."""
        return cls(index, shot, seed, length)

    def _draws(self, index: ClassIndex, shot: int, seed: int, length: int) -> Iterator[Draw]:
        classes = [class_id for class_id in index.class_ids if index.per_class[class_id]]
        if not classes:
            raise DataError(NONE)
        random = np.random.RandomState(seed)
        for _ in range(length):
            class_id = classes[int(random.choice(len(classes), 1, replace=False)[0])]
            images = index.per_class[class_id]
            query = images[int(random.choice(len(images), 1, replace=False)[0])]
            yield Draw(class_id, query, supports(random, images, query, shot))
