"""A run as its programs know it: configuration, folder and name; whether it is finished already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.config.identity import determining, identity
from fss.config.recording import ABOUT, FOLDER, records
from fss.errors import FssError
from fss.files import CHECKPOINT_FORMAT
from fss.results import load_result
from fss.runs.overwriting import must_clear


@dataclass
class Job:
    """One run.

    Attributes:
        config: resolved configuration.
        folder: where everything of the run goes.
        name: its slug.
        notes: what its result must say, besides what its options say.
    """

    config: dict[str, Any]
    folder: Path
    name: str
    notes: tuple[str, ...] = ()


def finished(job: Job) -> float | None:
    """Look for a finished run of the same identity.

    Args:
        job: the run.

    Returns:
        Its mIoU in percent, or None if it must run, as with ``overwrite=true`` the first time.

    Raises:
        FssError: if its result is damaged, or ``recording=on`` is asked of a run that was not recorded.
    """
    path = job.folder / "result.json"
    if not path.is_file() or (job.config["overwrite"] and must_clear(job.folder)):
        return None
    result = load_result(path)
    if result.identity != identity(job.config):
        return None
    if records(job.config) and not (job.folder / FOLDER / ABOUT).is_file():
        raise FssError(
            f"{job.folder} is finished, but was not recorded, and recording=on records while a run trains. Add "
            "overwrite=true to train it again, or leave recording=on out."
        )
    return result.scores.miou


def card(job: Job, trained_on: Iterable[str]) -> dict[str, Any]:
    """Return the plain facts that checkpoints carry; the model can be rebuilt from them.

    Args:
        job: the run.
        trained_on: names of the classes that it trains on; a test on other data must not take them for new.
    """
    return {
        "trained_on": list(trained_on),
        "format": CHECKPOINT_FORMAT,
        "config": job.config,
        "determining": determining(job.config),
        "identity": identity(job.config),
    }
