"""State of the runs of a sweep, derived from the files in their folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fss.config.identity import identity
from fss.errors import FssError
from fss.results import Result, load_result
from fss.runs.attempts import read_failure
from fss.runs.claims import holder

State = Literal["done", "running", "failed", "interrupted", "missing"]
STATES: tuple[State, ...] = ("done", "running", "failed", "interrupted", "missing")


@dataclass(frozen=True)
class Progress:
    """State of a run.

    Attributes:
        state: one of :data:`STATES`.
        text: score, owning process or error, in one line.
        miou: in per cent, if done.
    """

    state: State
    text: str
    miou: float | None = None


def progress(folder: Path, config: dict[str, Any]) -> Progress:
    """Determine the state of a run.

    Args:
        folder: run folder.
        config: resolved configuration of the run.

    Returns:
        Its state.
    """
    result = result_of(folder, config)
    if result is not None:
        return Progress("done", f"mIoU {result.scores.miou:.2f}", result.scores.miou)
    owner = holder(folder)
    if owner is not None:
        return Progress("running", str(owner))
    failure = read_failure(folder)
    if failure is not None:
        return Progress("failed", str(failure["error"]))
    if (folder / "checkpoints" / "last.ckpt").is_file():
        return Progress("interrupted", "the sweep's command continues it")
    return Progress("missing", "")


def result_of(folder: Path, config: dict[str, Any]) -> Result | None:
    """Read the result of a run, if it is finished.

    Args:
        folder: run folder.
        config: resolved configuration of the run.

    Returns:
        The result, or None if it is missing, damaged, or of other options.
    """
    try:
        result = load_result(folder / "result.json")
    except (FssError, OSError):
        return None
    return result if result.identity == identity(config) else None
