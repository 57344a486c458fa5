"""How a run ends early: the usual exit codes on signals, and SLURM's queue."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from fss.runs.processes.companions import observe_devices

log = logging.getLogger(__name__)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Leave with 143 on SIGTERM and 130 on Ctrl-C while the block runs.

    Lightning alone would note SIGTERM in a test and go on, and leave with 1 on Ctrl-C. While a training runs, its
    callback listens instead. Where Lightning starts a process per device, this one ends with its own words when one
    of them is killed.
    """
    observe_devices()
    main = threading.current_thread() is threading.main_thread()
    earlier = signal.signal(signal.SIGTERM, _leave) if main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # what Lightning makes of Ctrl-C
            sys.exit(130)
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, earlier or signal.SIG_DFL)


def _leave(signum: int, frame: Any) -> NoReturn:
    sys.exit(128 + signum)


def inside_slurm() -> bool:
    """Tell whether this process belongs to a SLURM job."""
    return "SLURM_JOB_ID" in os.environ


def requeue() -> None:
    """Ask SLURM to start this job again; the same command then continues the run.

    A failure is logged: the checkpoint is there, and the job can be submitted by hand.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        log.warning("SLURM did not requeue job %s: %s. Submit it again; it will continue.", job, reason)
    else:
        log.info("SLURM job %s was put back into the queue.", job)
