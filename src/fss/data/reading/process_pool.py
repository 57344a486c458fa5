"""Parallel map over spawned processes, with a bounded number of pending jobs."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

import cv2

from fss.errors import DataError

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")

FEW = 256
"""Number of jobs below which starting processes costs more than it saves."""

_WAITING = 16  # pending jobs per process; each holds the bytes of a file


def processes(asked: int | None, jobs: int) -> int:
    """Return the number of processes to use.

    Args:
        asked: requested number; None: one per core, at most 16, or a single one for few jobs.
        jobs: number of jobs.
    """
    if asked is not None:
        return max(1, min(asked, jobs))
    return min(16, os.cpu_count() or 1) if jobs >= FEW else 1


def spread(function: Callable[[Job], Outcome], jobs: Iterable[Job], workers: int) -> Iterator[Outcome]:
    """Call a function for every job, in this process or in several spawned single-threaded ones.

    Jobs are taken from the iterable as processes become free, so that a generator may read a large archive.

    Args:
        function: must be importable by name.
        jobs: its arguments.
        workers: processes; 1 uses this one.

    Yields:
        The results in the order of the jobs.

    Raises:
        DataError: if a process was killed, e.g. for lack of memory.
    """
    if workers <= 1:
        yield from map(function, jobs)
        return
    waiting: deque[Future[Outcome]] = deque()
    with ProcessPoolExecutor(workers, get_context("spawn"), _start) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(function, job))
                if len(waiting) >= _WAITING * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                f"One of {workers} processes was ended from outside, probably for want of memory. Repeat the command; "
                "it goes on where it stopped. --workers 1 needs the least memory."
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start() -> None:
    """Set up a process: one thread, Ctrl-C left to the parent, and exit when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
