"""Convert archive members to the files of a data set, one file per job, in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from PIL import Image
from rich.console import Console
from rich.progress import track

from fss.data.prepare.archive_members import Content, content_bytes, read_members
from fss.data.prepare.archives import Place
from fss.data.prepare.sbd_masks import BadMemberError, check_image, check_size, sbd_mask, voc_mask
from fss.data.reading.derived_files import write_atomic
from fss.data.reading.process_pool import processes, spread

_IMAGE_BYTES = 1 << 25
_MASK_BYTES = 1 << 24

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Pace:
    """Number of processes (None: one per core) and whether progress bars are shown."""

    workers: int | None = None
    progress: bool = True


@dataclass(frozen=True)
class _Job:
    """One file to write: its source, its target and, for a mask, the image it belongs to."""

    place: Place
    name: str
    content: Content
    target: Path
    image: Path | None = None


def store_images(place: Place, targets: Mapping[str, Path], pace: Pace) -> list[str]:
    """Copy images out of an archive; existing files are kept.

    Args:
        place: the archive or unpacked folder.
        targets: member -> file.
        pace: processes and progress bars.

    Returns:
        Members whose JPEG is truncated although the archive is the official one.

    Raises:
        DataError: if the archive is damaged or lacks a member, or the disk is full.
    """
    todo = {name: target for name, target in targets.items() if not target.is_file()}
    jobs = (_Job(place, n, c, todo[n]) for n, c in read_members(place, todo, _IMAGE_BYTES))
    done = _run(_store_image, jobs, f"Images from {place.archive.name}", len(todo), pace)
    return [name for name in done if name is not None]


def store_masks(place: Place, targets: Mapping[str, Path], images: Mapping[str, Path], pace: Pace) -> None:
    """Write masks of VOC (.png) or SBD (.mat) as 8-bit grey PNGs of class indices; existing files are kept.

    Args:
        place: the archive or unpacked folder.
        targets: member -> file.
        images: member -> its image, whose size the mask must have.
        pace: processes and progress bars.

    Raises:
        DataError: if the archive is damaged or lacks a member, or the disk is full.
    """
    todo = {name: target for name, target in targets.items() if not target.is_file()}
    jobs = (_Job(place, n, c, todo[n], images[n]) for n, c in read_members(place, todo, _MASK_BYTES))
    for _ in _run(_store_mask, jobs, f"Masks from {place.archive.name}", len(todo), pace):
        pass


def _run(
    function: Callable[[_Job], Outcome], jobs: Iterator[_Job], title: str, count: int, pace: Pace
) -> Iterator[Outcome]:
    done = spread(function, jobs, processes(pace.workers, count))
    return iter(track(done, title, count, console=Console(stderr=True), disable=not (pace.progress and count)))


def _store_image(job: _Job) -> str | None:
    data = content_bytes(job.content)
    try:
        _, complete = check_image(data)
    except BadMemberError as error:
        raise job.place.damaged(f"{job.name}: {error}") from error
    if not complete and not job.place.verified:
        raise job.place.damaged(f"{job.name}: the JPEG ends early")
    if not (isinstance(job.content, Path) and _linked(job.content, job.target)):
        write_atomic(job.target, data)
    return None if complete else job.name


def _linked(source: Path, target: Path) -> bool:
    """Hard-link a file of an unpacked folder to save space; False if that is not possible."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source.resolve(), target)
    except OSError:
        return False
    return True


def _store_mask(job: _Job) -> None:
    assert job.image is not None
    data = content_bytes(job.content)
    try:
        indices = sbd_mask(data) if job.name.endswith(".mat") else voc_mask(data)
        with Image.open(job.image) as image:
            check_size(image)
            size = image.size
        if indices.shape != size[::-1]:
            raise BadMemberError(f"it has {indices.shape[::-1]} pixels, its photograph {size}")
    except (BadMemberError, OSError) as error:
        raise job.place.damaged(f"{job.name}: {error}") from error
    buffer = BytesIO()
    Image.fromarray(indices).save(buffer, format="PNG")
    write_atomic(job.target, buffer.getvalue())
