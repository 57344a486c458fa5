"""A run as its programs know it: configuration, folder and name; whether it is finished already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.config.identity import determining, identity
from fss.results import load_result


@dataclass
class Job:
    """One run.

    Attributes:
        config: resolved configuration.
        folder: where everything of the run goes.
        name: its slug.
    """

    config: dict[str, Any]
    folder: Path
    name: str


def finished(job: Job) -> float | None:
    """Look for a finished run of the same identity.

    Args:
        job: the run.

    Returns:
        Its mIoU in percent, or None if it must run, as with ``overwrite=true``.

    Raises:
        FssError: if its result is damaged.
    """
    path = job.folder / "result.json"
    if job.config["overwrite"] or not path.is_file():
        return None
    result = load_result(path)
    return result.scores.miou if result.identity == identity(job.config) else None


def card(job: Job) -> dict[str, Any]:
    """Return the plain facts that checkpoints carry; the model can be rebuilt from them.

    Args:
        job: the run.
    """
    return {
        "format": 1,
        "config": job.config,
        "determining": determining(job.config),
        "identity": identity(job.config),
    }
