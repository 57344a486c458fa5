"""Class names and ids of PASCAL and COCO, and the base and novel classes of each fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fss.errors import DataError

FOLDS = 4
"""Number of folds of a data set whose YAML file does not set ``folds``."""

CocoScheme = Literal["fwb", "panet"]

_PASCAL = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow "
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor"
)

_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)

PASCAL_CLASSES: dict[int, str] = dict(enumerate(_PASCAL.split(), start=1))
"""VOC class id -> name, ids 1..20."""

COCO_CLASSES: dict[int, str] = dict(enumerate(_COCO.split(","), start=1))
"""Contiguous COCO class id -> name, ids 1..80 in ascending COCO category id."""

COCO_UNUSED_CATEGORY_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""Category ids between 1 and 90 that COCO never uses."""

COCO_CATEGORY_IDS: tuple[int, ...] = tuple(i for i in range(1, 91) if i not in COCO_UNUSED_CATEGORY_IDS)
"""COCO category ids; that of contiguous class id i is at position i - 1."""


@dataclass(frozen=True)
class FoldClasses:
    """The class ids of one fold.

    Attributes:
        fold: number of the fold, from 0.
        base: ids trained on, ascending.
        novel: ids held out, ascending.
    """

    fold: int
    base: tuple[int, ...]
    novel: tuple[int, ...]


def check_fold(fold: int, folds: int = FOLDS) -> int:
    """Return the fold number if the fold exists.

    Args:
        fold: number given by the user.
        folds: number of folds of the data set.

    Raises:
        DataError: if it is not one of 0 to folds - 1.
    """
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < folds:
        allowed = ", ".join(map(str, range(folds)))
        raise DataError(f"fold={fold!r} does not exist: allowed are {allowed}. Give for example fold=0.")
    return fold


def block_fold(class_ids: Iterable[int], fold: int, folds: int = FOLDS) -> FoldClasses:
    """Split classes into consecutive blocks; block ``fold`` is novel (PASCAL-5i, shapes, COCO's panet scheme).

    Args:
        class_ids: all ids of the data set.
        fold: 0 to folds - 1.
        folds: number of blocks.

    Raises:
        DataError: if the fold does not exist or the number of classes is not divisible by the number of folds.
    """
    check_fold(fold, folds)
    ids = sorted(class_ids)
    if not ids or len(ids) % folds:
        raise DataError(f"{len(ids)} classes cannot be divided into {folds} folds; give a multiple of {folds}.")
    size = len(ids) // folds
    return _without(ids, set(ids[fold * size : (fold + 1) * size]), fold)


def coco_fold(fold: int, scheme: CocoScheme = "fwb") -> FoldClasses:
    """Return the classes of a COCO-20i fold.

    Args:
        fold: 0..3.
        scheme: ``fwb``: every fourth class (fold + 1, fold + 5, ...), used by PFENet, BAM and SVF;
            ``panet``: blocks of 20.

    Raises:
        DataError: if the fold or the scheme does not exist.
    """
    check_fold(fold)
    if scheme not in get_args(CocoScheme):
        raise DataError(f"COCO split scheme {scheme!r} does not exist: allowed are fwb (the usual one) and panet.")
    ids = sorted(COCO_CLASSES)
    if scheme == "panet":
        return block_fold(ids, fold)
    return _without(ids, set(ids[fold::FOLDS]), fold)


def name_classes(ids: Iterable[int], names: Mapping[int, str]) -> dict[int, str]:
    """Return id -> name for some ids, ascending.

    Args:
        ids: class ids.
        names: names of all classes.
    """
    return {i: names[i] for i in sorted(ids)}


def _without(ids: list[int], novel: set[int], fold: int) -> FoldClasses:
    return FoldClasses(fold, tuple(i for i in ids if i not in novel), tuple(sorted(novel)))
