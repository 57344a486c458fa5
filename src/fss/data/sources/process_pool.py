"""Work spread over fresh processes, with a bounded number of jobs on their way."""

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
"""Jobs below which starting processes costs more than it saves."""

_WAITING = 16  # jobs per process that are read ahead; they hold the bytes of a file each


def processes(asked: int | None, jobs: int) -> int:
    """Return the number of processes to use.

    Args:
        asked: None for one per core, at most 16, and for a single one where there are few jobs.
        jobs: how many there are.
    """
    if asked is not None:
        return max(1, min(asked, jobs))
    return min(16, os.cpu_count() or 1) if jobs >= FEW else 1


def spread(function: Callable[[Job], Outcome], jobs: Iterable[Job], workers: int) -> Iterator[Outcome]:
    """Call a function for every job, in this process or in several spawned ones of one thread each.

    Jobs are taken from the iterable as processes become free, so that a generator may read a large archive.

    Args:
        function: importable by name.
        jobs: its arguments.
        workers: processes; 1 stays in this one.

    Yields:
        The results in the order of the jobs.

    Raises:
        DataError: if a process was killed, for example for want of memory.
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
    """Prepare a process: one thread, Ctrl-C left to the parent, and no life after a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
