"""Put a SLURM job back into the queue."""

from __future__ import annotations

import logging
import os
import subprocess

log = logging.getLogger(__name__)


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
