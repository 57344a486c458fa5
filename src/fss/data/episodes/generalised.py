"""Episodes of generalised testing: base classes and one novel class at once (BAM's test_GFSS, protocol D.5)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fss.data.episodes.areas import AreaTable
from fss.data.episodes.options import check_least
from fss.data.episodes.stateless import Draw, RandomStream, check_enough
from fss.data.sources.folds import FoldClasses
from fss.errors import DataError

_GENERALISED = 4  # purpose of the random stream, see fss.data.episodes.stateless


class GeneralisedEpisodes:
    """Every image of the validation list is a query, in list order, whatever classes it contains.

    A query without base classes gets one of its own novel classes. Any other query, and one of background alone, gets
    any novel class of the fold, which it may not contain. Supports are distinct images other than the query with any
    pixel of that class.

    Attributes:
        sampler: name of the rule.
        class_ids: novel classes, ascending.

    Args:
        table: areas of the list.
        classes: base and novel classes of the fold.
        shot: supports per episode.
        seed: seed of classes and supports, >= 0.
        length: number of episodes; a shorter list is repeated.

    Raises:
        DataError: if a number is not allowed, or a class has too few images.
    """

    sampler: ClassVar[str] = "generalised"

    def __init__(self, table: AreaTable, classes: FoldClasses, shot: int, seed: int, length: int) -> None:
        check_least("shot", shot, 1)
        check_least("test_seed", seed, 0)
        check_least("test_episodes", length, 1)
        self.class_ids = tuple(classes.novel)
        self.ids, self.shot, self.seed, self.length = table.ids, shot, seed, length
        self._novel: npt.NDArray[np.bool_] = np.asarray(table.columns(self.class_ids) > 0)
        self._has_base: npt.NDArray[np.bool_] = np.asarray((table.columns(classes.base) > 0).any(axis=1))
        self._per_class = {
            c: tuple(table.ids[row] for row in np.flatnonzero(self._novel[:, k])) for k, c in enumerate(self.class_ids)
        }
        too_small = [c for c, images in self._per_class.items() if len(images) < shot + 1]
        if too_small:
            raise DataError(
                f"The novel classes {too_small} are in fewer than shot + 1 = {shot + 1} validation images. Complete "
                "the data set, or lower shot."
            )

    def __len__(self) -> int:
        """Return the number of episodes."""
        return self.length

    def draw(self, epoch: int, i: int) -> Draw:
        """Return episode ``i``.

        Args:
            epoch: unused.
            i: number of the episode.
        """
        row = i % len(self.ids)
        query = self.ids[row]
        stream = RandomStream(_GENERALISED, self.seed, i)
        candidates = list(self.class_ids)
        if not self._has_base[row] and self._novel[row].any():
            candidates = [self.class_ids[k] for k in np.flatnonzero(self._novel[row])]
        class_id = candidates[stream.below(len(candidates))]
        images = self._per_class[class_id]
        check_enough(images, query, self.shot)
        chosen: dict[str, None] = {}
        while len(chosen) < self.shot:
            image = images[stream.below(len(images))]
            if image != query:
                chosen[image] = None
        return Draw(class_id, query, tuple(chosen))
