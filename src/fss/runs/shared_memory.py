"""Whether loader processes have the shared memory that their batches need."""

from __future__ import annotations

import shutil
from pathlib import Path

from fss.errors import FssError

SHM = Path("/dev/shm")
_PREFETCH = 2
"""Batches that every loader process of torch keeps ready."""


def check_shared_memory(batch: int, shot: int, size: int, workers: int) -> None:
    """Refuse loader processes whose batches do not fit into shared memory, where they would die or wait for ever.

    Args:
        batch: training episodes per step and process.
        shot: supports per episode.
        size: side of the network input in pixels.
        workers: loader processes.

    Raises:
        FssError: if ``/dev/shm`` has less room than the batches on their way need.
    """
    free = free_bytes()
    needed = batch_bytes(batch, shot, size) * _PREFETCH * workers
    if free is None or needed <= free:
        return
    fitting = int(free // (batch_bytes(batch, shot, size) * _PREFETCH))
    raise FssError(
        f"workers={workers} need {needed / 2**20:,.0f} MiB of shared memory for batches on their way, and {SHM} has "
        f"{free / 2**20:,.0f} MiB free. Give workers={fitting}, or more shared memory: docker run --shm-size=8g, or "
        f"mount -o remount,size=8G {SHM}."
    )


def batch_bytes(batch: int, shot: int, size: int) -> int:
    """Return the bytes of one training batch: images as float32, labels as bytes.

    Args:
        batch: episodes.
        shot: supports per episode.
        size: side of the network input in pixels.
    """
    return batch * (1 + shot) * size * size * (3 * 4 + 1)


def free_bytes() -> int | None:
    """Return the room in shared memory in bytes; None where the system has no such folder."""
    try:
        return shutil.disk_usage(SHM).free
    except OSError:
        return None
