"""Prepare COCO-20i from the archives of COCO 2014 or 2017."""

from __future__ import annotations

import logging
import re
from typing import Any, get_args

from fss.data.prepare.archive_members import read_all
from fss.data.prepare.archives import COCO, Place
from fss.data.prepare.extraction import store_images
from fss.data.prepare.request import Request, begin, find_places, finish, locked, sweep
from fss.data.reading.derived_files import write_atomic
from fss.data.sources.base import ListSplit
from fss.data.sources.coco_masks import MaskRule, MaskTask, draw_masks, read_tasks
from fss.data.sources.manifest import Manifest, finished, list_hash
from fss.errors import DataError

log = logging.getLogger(__name__)

COUNTS = {2014: {"train": 82_081, "val": 40_137}, 2017: {"train": 117_266, "val": 4_952}}
"""Number of annotated images in the official archives."""

_INSTANCES_BYTES = 1 << 31
_STEM = re.compile(r"[A-Za-z0-9_-]{1,100}")


def prepare_coco(request: Request) -> Manifest:
    """Write the annotated images, the instances files and index masks of COCO-20i.

    Args:
        request: root, archives and checks, with the options ``year`` and ``mask_rule``.

    Returns:
        The manifest of the finished root.

    Raises:
        DataError: if something is missing, damaged or different; the message names it and the next command.
    """
    year, rule = request.options["year"], request.options["mask_rule"]
    if year not in COCO:
        raise DataError(f"--year {year} is not known: choose {' or '.join(map(str, COCO))}.")
    with locked(request.root):
        existing = finished(request.root, {"data": request.data, **request.options})
        if existing is not None:
            return existing
        archives = COCO[year]
        places = dict(zip(archives, find_places(request, list(archives.values())), strict=True))
        made = [f"annotations/{split}{year}" for split in get_args(ListSplit)]
        copied = {place.archive.prefix: place for place in places.values()}
        state = begin(request, list(places.values()), True, made, copied)
        _copy_instances(request, places["annotations"], year)
        facts: Manifest = {"counts": {}, "lists": {}, "without_polygon": 0}
        folders: dict[str, int] = {}
        for split in get_args(ListSplit):
            tasks = _convert(request, places[split], split, year, rule)
            facts["counts"][split] = len(tasks)
            facts["lists"][split] = list_hash(task.target.stem for task in tasks)
            facts["without_polygon"] += sum(task.without_polygon for task in tasks)
            folders |= {f"{split}{year}": len(tasks), f"annotations/{split}{year}": len(tasks)}
        if facts["counts"] != COUNTS[year]:
            log.warning("%s annotated images instead of %s of COCO %d", facts["counts"], COUNTS[year], year)
        sweep(request.root / "annotations")
        return finish(request.root, state, facts, folders)


def _copy_instances(request: Request, place: Place, year: int) -> None:
    """Copy both instances files unless they exist."""
    folder = request.root / "annotations"
    sweep(folder)
    names = [f"instances_{split}{year}.json" for split in get_args(ListSplit)]
    for name in [n for n in names if not (folder / n).is_file()]:
        (content,) = read_all(place, [name], _INSTANCES_BYTES).values()
        write_atomic(folder / name, content)


def _convert(request: Request, place: Place, split: ListSplit, year: int, rule: MaskRule) -> list[MaskTask]:
    """Copy the annotated images of a split and draw their masks."""
    root, name = request.root, f"{split}{year}"
    masks = root / "annotations" / name
    sweep(root / name)
    sweep(masks)
    tasks = read_tasks(root / "annotations" / f"instances_{name}.json", masks, rule)
    stems: list[Any] = [task.target.stem for task in tasks]
    invalid = next((s for s in stems if not _STEM.fullmatch(s)), None)
    if invalid is not None or len(set(stems)) < len(stems) or not stems:
        raise DataError(
            f"instances_{name}.json names no annotated image, one twice, or a strange one ({str(invalid)[:80]!r}): "
            f"it is not COCO's. Get it again with: {place.again}"
        )
    damaged = store_images(place, {f"{s}.jpg": root / name / f"{s}.jpg" for s in stems}, request.pace)
    if damaged:
        log.warning("%d images of %s end early, first %s", len(damaged), place.archive.name, damaged[0])
    pace = request.pace
    draw_masks(tasks, f"Masks of {name}", pace.progress, pace.workers)
    return tasks
