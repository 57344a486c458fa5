"""Prepare PASCAL-5i from the archives of VOC 2012 and SBD."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from rich.console import Console

from fss.data.prepare.archive_members import read_all
from fss.data.prepare.archives import SBD, VOC, Place
from fss.data.prepare.extraction import store_images, store_masks
from fss.data.prepare.request import Request, begin, find_places, finish, locked, sweep
from fss.data.reading.derived_files import write_atomic
from fss.data.sources.manifest import Manifest, finished
from fss.data.sources.pascal_lists import PascalLists, derive_lists, differences
from fss.errors import DataError

log = logging.getLogger(__name__)

_LIST_BYTES = 1 << 22
_SETS = ("ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt", "ImageSets/Main/val.txt")
_SBD_SETS = ("train.txt", "val.txt")
_ID = re.compile(r"[A-Za-z0-9_]{1,64}")
_IMAGES, _MASKS, _LISTS = "JPEGImages", "SegmentationClassAug", "ImageSets/FewShot"


def prepare_pascal(request: Request) -> Manifest:
    """Write the images, index masks and lists of PASCAL-5i.

    Images of VOC's segmentation task get VOC's own masks, the rest get SBD's.

    Args:
        request: root, archives and checks.

    Returns:
        The manifest of the finished root.

    Raises:
        DataError: if something is missing, damaged or different; the message names it and the next command.
    """
    with locked(request.root):
        existing = finished(request.root, {"data": request.data})
        if existing is not None:
            return existing
        voc, sbd = find_places(request, (VOC, SBD))
        with Console(stderr=True, quiet=not request.pace.progress).status("Reading the image sets"):
            lists = _lists(voc, sbd)
        mismatches = _compare(lists, request)
        state = begin(request, (voc, sbd), not mismatches, (_MASKS, _LISTS), {_IMAGES: voc})
        _convert(request, lists, voc, sbd)
        for split in ("train", "val"):
            ids = getattr(lists, split)
            write_atomic(request.root / _LISTS / f"{split}.txt", "".join(f"{i}\n" for i in ids))
        count = len({*lists.train, *lists.val})
        facts = {"counts": lists.counts(), "lists": lists.hashes(), "differences": mismatches}
        return finish(request.root, state, facts, {_IMAGES: count, _MASKS: count, _LISTS: 2})


def _lists(voc: Place, sbd: Place) -> PascalLists:
    """Read the image sets and derive the lists."""
    voc_sets, sbd_sets = read_all(voc, _SETS, _LIST_BYTES), read_all(sbd, _SBD_SETS, _LIST_BYTES)
    train, val, main_val = (_ids(voc, name, voc_sets[name]) for name in _SETS)
    extra = [i for name in _SBD_SETS for i in _ids(sbd, name, sbd_sets[name])]
    return derive_lists(train, val, main_val, extra)


def _ids(place: Place, name: str, data: bytes) -> list[str]:
    """Return the ids of an image set, the first word of every line."""
    ids = [line.split()[0] for line in data.decode("ascii", "replace").splitlines() if line.strip()]
    invalid = next((i for i in ids if not _ID.fullmatch(i)), None)
    if invalid is not None or not ids or len(set(ids)) < len(ids):
        why = "is empty or repeats an id" if invalid is None else f"holds {invalid[:80]!r}, which is no image id"
        raise place.damaged(f"{name} {why}")
    return ids


def _compare(lists: PascalLists, request: Request) -> list[str]:
    """Return the differences from the released lists; they are an error unless ``unverified`` is set."""
    mismatches = differences(lists)
    if mismatches and not request.unverified:
        raise DataError(
            f"The image sets in {request.folder} do not give the released lists of PASCAL-5i "
            f"({'; '.join(mismatches)}). They are not those of VOC 2012 and SBD: get the official archives with "
            f"{request.command()} --download after moving the present files away, or accept other lists with "
            "--unverified."
        )
    if mismatches:
        log.warning("these are not the released lists of PASCAL-5i: %s", "; ".join(mismatches))
    return mismatches


def _convert(request: Request, lists: PascalLists, voc: Place, sbd: Place) -> None:
    """Write the images, then the masks, whose sizes are checked against them."""
    root = request.root
    for folder in (_IMAGES, _MASKS, _LISTS):
        sweep(root / folder)
    ids = sorted({*lists.train, *lists.val})
    images = {i: root / _IMAGES / f"{i}.jpg" for i in ids}
    damaged = store_images(voc, {f"JPEGImages/{i}.jpg": path for i, path in images.items()}, request.pace)
    own = {*lists.voc_train, *lists.val}
    for place, name, chosen in (
        (voc, "SegmentationClass/{}.png", [i for i in ids if i in own]),
        (sbd, "cls/{}.mat", [i for i in ids if i not in own]),
    ):
        targets = {name.format(i): root / _MASKS / f"{i}.png" for i in chosen}
        store_masks(place, targets, {name.format(i): images[i] for i in chosen}, request.pace)
    if damaged:
        log.warning("%d images of the official archive end early, first %s", len(damaged), Path(damaged[0]).stem)
