"""One run of a sweep: done once by whoever comes first, and no failure stops the others."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fss.cli.claims import claimed
from fss.cli.edge import explained, identity
from fss.cli.phases import finished
from fss.cli.trainer import Job
from fss.errors import FssError, first_line
from fss.files import write_json

log = logging.getLogger(__name__)

FAILURE = "failed.json"
SWEEP = "FSS_SWEEP"
"""Environment variable with the id of the sweep that started a process."""


def attempt(job: Job, work: Callable[[Job], float], sweeping: bool) -> float:
    """Do a run unless it is finished or another process works on it.

    Args:
        job: the run.
        work: does it and returns its mIoU in percent.
        sweeping: it is one of many: note an error in ``failed.json`` and go on.

    Returns:
        The mIoU in percent; NaN if the run failed or is done elsewhere, while sweeping.

    Raises:
        FssError: if another process works on it, and it is the only run that was asked for.
    """
    done = _known(job)
    if done is not None:
        return done
    if not _leads():
        return work(job)
    with claimed(job.folder) as other:
        if other is not None:
            since = time.strftime("%H:%M:%S", time.localtime(other.since))
            text = f"{other} works on this very run since {since}: {job.folder}"
            if not sweeping:
                raise FssError(f"{text}. Wait for it, or stop it and type the same command again; it continues.")
            log.info("Left out: %s", text)
            return math.nan
        done = _known(job)  # it may have been finished between the first look and the claim
        if done is not None:
            return done
        (job.folder / FAILURE).unlink(missing_ok=True)
        try:
            return work(job)
        except Exception as error:
            if not sweeping:
                raise
            _note(job, error)
            return math.nan


def once(job: Job, work: Callable[[Job], float]) -> None:
    """Do a run that others build on, or wait until another process has done it.

    Args:
        job: the run.
        work: does it.
    """
    if finished(job) is not None:
        return
    if not _leads():
        work(job)
        return
    with claimed(job.folder, wait=True):
        if finished(job) is None:
            work(job)


def failures(group: Path, sweep: str) -> list[tuple[str, str]]:
    """Collect what failed in a sweep.

    Args:
        group: folder of the runs.
        sweep: id of the sweep.

    Returns:
        Pairs of the run's name and the first line of its error.
    """
    found = []
    for path in sorted(group.glob(f"*/{FAILURE}")):
        known = read_failure(path.parent)
        if known is not None and known.get("sweep") == sweep:
            found.append((path.parent.name, str(known["error"])))
    return found


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Read why a run failed.

    Args:
        folder: of the run.

    Returns:
        ``error`` (one line), ``text``, ``time``, ``identity``, ``sweep``; None if it did not fail.
    """
    try:
        content = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "error" in content else None


def begin_sweep() -> str:
    """Give this sweep an id that its runs inherit, in other processes and SLURM jobs, too."""
    os.environ[SWEEP] = uuid.uuid4().hex
    return os.environ[SWEEP]


def _known(job: Job) -> float | None:
    done = finished(job)
    if done is not None:
        log.info("Already finished with mIoU %.2f: %s (overwrite=true runs it again)", done, job.folder)
    return done


def _leads() -> bool:
    """Tell whether this process decides for a run, and is not started as one more of its devices."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "RANK"))


def _note(job: Job, error: Exception) -> None:
    text = explained(error)
    known = text is not None
    content = {
        "error": text.strip().splitlines()[0] if text else f"{type(error).__name__}: {first_line(error)}",
        "text": text or "".join(traceback.format_exception(error)),
        "time": time.time(),
        "identity": identity(job.config),
        "sweep": os.environ.get(SWEEP),
    }
    write_json(job.folder / FAILURE, content)  # makes the folder, if nothing was worth keeping: the log needs it
    log.error("%s failed; the sweep goes on. %s", job.name, text or "", exc_info=None if known else error)
