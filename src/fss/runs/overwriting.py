"""Overwrite a finished run once per request: requeued jobs continue, and machines of one sweep share its runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from fss.files import write_json

MARK = "overwritten.json"
"""File in the run's folder that says for which request it was cleared."""
BEGUN = "FSS_SWEEP_BEGUN"
"""Environment variable with the start of the sweep that started a process, seconds since 1970."""
_CLEARED = ("result.json", "failed.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
_START = time.time()


def begin_request() -> None:
    """Note that a command begins now; a sweep notes its own begin for all of its runs."""
    global _START
    _START = time.time()


def must_clear(folder: Path) -> bool:
    """Tell whether ``overwrite=true`` still has something to clear in a run's folder.

    A file that was written after the request began belongs to it: another machine of the same sweep wrote it.

    Args:
        folder: of the run.

    Returns:
        False once this request, or another process of it, has cleared the folder.
    """
    request, begun = _request()
    if _cleared_for(folder) == request:
        return False
    written = [path.stat().st_mtime for name in _CLEARED if (path := folder / name).is_file()]
    return bool(written) and min(written) < begun


def clear(folder: Path) -> None:
    """Remove what a run is skipped for or continued from, and note the request; call it with the run's claim held.

    Args:
        folder: of the run.
    """
    if must_clear(folder):
        for name in _CLEARED:
            (folder / name).unlink(missing_ok=True)
    write_json(folder / MARK, {"request": _request()[0]})


def _request() -> tuple[str, float]:
    """Return what identifies a request, and when it began: a SLURM job keeps its number when it is requeued."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    begun = float(os.environ.get(BEGUN, _START))
    if job is not None:
        return f"slurm-{job}", begun
    return f"{os.environ.get('FSS_SWEEP', os.getpid())}-{begun}", begun


def _cleared_for(folder: Path) -> str | None:
    try:
        content = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(content.get("request")) if isinstance(content, dict) else None
