"""One run of a sweep: done once by whoever comes first, and no failure stops the others."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import traceback
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.config.error_texts import explained
from fss.config.identity import identity
from fss.errors import FssError, first_line
from fss.files import write_json
from fss.runs.claims import claimed
from fss.runs.job import Job, finished
from fss.runs.overwriting import BEGUN, clear
from fss.tracking.wandb_run import finishing

log = logging.getLogger(__name__)

FAILURE = "failed.json"
SWEEP = "FSS_SWEEP"
"""Environment variable with the id of the sweep that started a process."""


@dataclass(frozen=True)
class Sweep:
    """What a run knows of the sweep that it belongs to.

    Attributes:
        launcher: choice of ``hydra/launcher``.
        optimising: the sweeper chooses later runs by the scores of earlier ones, so that a failure must reach it.
    """

    launcher: str = ""
    optimising: bool = False


def attempt(job: Job, work: Callable[[Job], float], sweep: Sweep | None = None) -> float:
    """Do a run unless it is finished or another process works on it.

    Args:
        job: the run.
        work: does it and returns its mIoU in percent.
        sweep: the sweep that the run is part of, or None: an error is noted in ``failed.json``, and the sweep goes on.

    Returns:
        The mIoU in percent; NaN if the run failed or is done elsewhere, while sweeping.

    Raises:
        FssError: if another process works on it, and it is the only run that was asked for; if several devices and a
            sweep within one process do not go together.
        Exception: what a run of an optimising sweep failed with: a NaN would count as a score.
    """
    if not _leads():
        return work(job)
    if sweep is not None and _several(job) and "submitit" not in sweep.launcher:
        raise FssError(
            "A sweep with several devices per run needs a job for each run: every process of a run would start the "
            "whole sweep. Add hydra/launcher=submitit_slurm (or submitit_local), or type one command per "
            "run, without -m."
        )
    try:
        return _claim_and_run(job, work, alone=sweep is None or sweep.optimising)
    except Exception as error:
        if sweep is None:
            raise
        _note(job, error)
        if sweep.optimising:
            raise
        return math.nan


def _claim_and_run(job: Job, work: Callable[[Job], float], alone: bool) -> float:
    """Do a run if it is not finished and nobody works on it; alone, the latter is an error."""
    done = _known(job)
    if done is not None:
        return done
    with claimed(job.folder) as other:
        if other is not None:
            since = time.strftime("%H:%M:%S", time.localtime(other.since))
            text = f"{other} works on this very run since {since}: {job.folder}"
            if alone:
                raise FssError(f"{text}. Wait for it, or stop it and type the same command again; it continues.")
            log.info("Left out: %s", text)
            return math.nan
        done = _known(job)  # it may have been finished between the first look and the claim
        return _begin(job, work) if done is None else done


def _begin(job: Job, work: Callable[[Job], float]) -> float:
    (job.folder / FAILURE).unlink(missing_ok=True)
    if job.config["overwrite"]:
        clear(job.folder)
    with finishing():  # the next run of this process is another one at W&B, too
        return work(job)


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


def failures(roots: Iterable[Path], sweep: str) -> list[tuple[str, str]]:
    """Collect what failed in a sweep.

    Args:
        roots: folders below which runs lie, at any depth.
        sweep: id of the sweep.

    Returns:
        Pairs of the run's name and the first line of its error.
    """
    found = []
    for path in sorted({path.resolve() for root in roots for path in root.rglob(FAILURE)}):
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
    os.environ[BEGUN] = str(time.time())
    return os.environ[SWEEP]


def _known(job: Job) -> float | None:
    done = finished(job)
    if done is not None:
        log.info("Already finished with mIoU %.2f: %s (overwrite=true runs it again)", done, job.folder)
    return done


def _leads() -> bool:
    """Tell whether this process decides for a run, and is not started as one more of its devices."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "RANK"))


def _several(job: Job) -> bool:
    trainer = job.config["trainer"]
    devices = trainer.get("devices", 1)
    on_cpu = trainer.get("accelerator") == "cpu"
    return trainer.get("num_nodes", 1) != 1 or devices not in (1, "1", "auto" if on_cpu else 1, -1 if on_cpu else 1)


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
    try:
        write_json(job.folder / FAILURE, content)  # makes the folder, if nothing was worth keeping: the log needs it
    except OSError:  # a folder that cannot be written, which may be the very failure
        write_json(Path(f"multirun/unwritable/{job.name}") / FAILURE, content)
    log.error("%s failed; the sweep goes on. %s", job.name, text or "", exc_info=None if known else error)
