"""Index of the query images and of each class's candidate supports, from the area table (protocol A.1)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fss.data.episodes.areas import AreaTable
from fss.data.episodes.options import MIN_AREA, SmallClasses
from fss.data.sources.shared_ids import Names
from fss.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassIndex:
    """The query images of a split and the images of each of its classes, in list order.

    Ids are stored as arrays (:class:`fss.data.sources.shared_ids.Names`), so that data loader workers share one copy.

    Attributes:
        class_ids: ids of the classes that episodes are drawn for, ascending.
        images: ids of the query images, N of them.
        per_class: class id -> images in which its area is large enough, the candidate supports.
        present: whether a class has any pixel in a query image, (N, len(class_ids)), bool.
    """

    class_ids: tuple[int, ...]
    images: Sequence[str]
    per_class: Mapping[int, Sequence[str]]
    present: npt.NDArray[np.bool_]


def class_index(
    table: AreaTable,
    relevant: Sequence[int],
    forbidden: Sequence[int] = (),
    min_area: int = MIN_AREA,
) -> ClassIndex:
    """Build the index of an image list by the released rules.

    An image is a query if at least one relevant class is large enough in it and no forbidden class has a single
    pixel. It is listed under each class that is large enough. Other classes are ignored.

    Args:
        table: areas of one image list.
        relevant: classes that episodes are drawn for.
        forbidden: classes whose presence removes an image.
        min_area: minimum area of a class.
    """
    classes = tuple(sorted(relevant))
    areas = table.columns(classes)
    eligible = areas >= min_area
    used = eligible.any(axis=1) & ~(table.columns(sorted(forbidden)) > 0).any(axis=1)
    rows = np.flatnonzero(used)
    names = Names.of(table.ids[r] for r in rows)
    return ClassIndex(
        class_ids=classes,
        images=names,
        per_class={c: names.pick(np.flatnonzero(eligible[rows, k])) for k, c in enumerate(classes)},
        present=areas[rows] > 0,
    )


def without_small_classes(index: ClassIndex, shot: int, rule: SmallClasses, names: dict[int, str]) -> ClassIndex:
    """Ensure that every class has a query and ``shot`` other images as supports.

    Args:
        index: index of a split.
        shot: supports per episode.
        rule: ``error``, or ``drop`` to remove smaller classes, and images that have no other class, with a warning.
        names: class names, for the messages.

    Returns:
        The same index, or a smaller one.

    Raises:
        DataError: if a class is too small under ``error``, or no class is left under ``drop``.
    """
    small = [c for c in index.class_ids if len(index.per_class[c]) < shot + 1]
    if not small:
        return index
    listed = ", ".join(f"{names[c]} ({len(index.per_class[c])})" for c in small)
    problem = f"{len(small)} of {len(index.class_ids)} classes have fewer than shot + 1 = {shot + 1} images: {listed}"
    if rule == "error":
        raise DataError(
            f"{problem}. Complete the data set, lower shot, lower data.min_area, or leave these classes out with "
            "data.small_classes=drop (fss data: --small-classes drop)."
        )
    kept = tuple(c for c in index.class_ids if c not in small)
    if not kept:
        raise DataError(f"{problem}. No class is left; lower shot or data.min_area, or complete the data set.")
    _log.warning("%s. They are left out (small_classes=drop).", problem)
    kept_images = {i for c in kept for i in index.per_class[c]}
    rows = [r for r, i in enumerate(index.images) if i in kept_images]
    columns = [k for k, c in enumerate(index.class_ids) if c in kept]
    return ClassIndex(
        class_ids=kept,
        images=Names.of(index.images[r] for r in rows),
        per_class={c: index.per_class[c] for c in kept},
        present=index.present[rows][:, columns],
    )
