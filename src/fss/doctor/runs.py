"""What ``fss doctor`` finds below ``multirun/``: runs, base learners, and logs that wait for their upload."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fss.commands import noun, program, typed
from fss.doctor.check_result import CheckResult

_SKIPPED = {"checkpoints", "tensorboard", "csv", ".hydra"}
_NAMED = 3  # unfinished runs whose command is repeated


@dataclass
class Runs:
    """Everything below a folder of runs.

    Attributes:
        finished: key of every result of train.py.
        tests: how many results of eval.py there are.
        unfinished: folders without a finished result, of runs that were interrupted or still go on.
        damaged: result files that cannot be read.
        offline: W&B folders that were not uploaded.
    """

    finished: list[dict[str, Any]] = field(default_factory=list)
    tests: int = 0
    unfinished: list[Path] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    offline: list[Path] = field(default_factory=list)


def scan(folder: Path) -> Runs:
    """Look through a folder of runs once.

    Args:
        folder: ``multirun``, or any folder below it.

    Returns:
        What is there; nothing where there is no folder.
    """
    runs = Runs()
    for place, folders, files in os.walk(folder):
        here = Path(place)
        started = ".hydra" in folders  # train.py leaves its configuration there, eval.py does not
        done = "result.json" in files and _take(runs, here / "result.json", started)
        if started and not done:
            runs.unfinished.append(here)
        if "wandb" in folders:
            runs.offline += _offline(here / "wandb")
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and f != "wandb")
    return runs


def _take(runs: Runs, path: Path, started: bool) -> bool:
    """Enter a result file; return whether it is finished."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        status, key = content["status"], dict(content["key"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        runs.damaged.append(path)
        return False
    if status != "finished":
        return False
    if started or key.get("method") == "base_learner":
        runs.finished.append(key)
    else:
        runs.tests += 1
    return True


def _offline(folder: Path) -> list[Path]:
    try:
        found = sorted(folder.glob("offline-run-*"))
        return [run for run in found if run.is_dir() and not any(run.glob("*.synced"))]
    except OSError:
        return []


def runs_of(folder: Path, runs: Runs) -> Iterator[CheckResult]:
    """Count finished and unfinished runs.

    Args:
        folder: what was looked through.
        runs: what is there.
    """
    facts = {"finished": len(runs.finished), "tests": runs.tests}
    if not (runs.finished or runs.tests or runs.unfinished or runs.damaged):
        yield CheckResult("finished", "note", f"none below {folder}", program(), facts=facts)
        return
    text = f"{len(runs.finished)} trainings and {runs.tests} tests by {noun('eval')} below {folder}"
    yield CheckResult("finished", "ok", text, facts=facts)
    count = len(runs.unfinished)
    first = f"; the first {_NAMED}:" if count > _NAMED else ""
    text = f"{count} interrupted, or still going on{first}" if count else "none"
    yield CheckResult("unfinished", "note" if count else "ok", text, facts={"count": count})
    for path in runs.unfinished[:_NAMED]:
        yield CheckResult("unfinished", "note", str(path), _command(path), facts={"folder": str(path)})
    for path in runs.damaged:
        text = f"{path} cannot be read; delete it and repeat the run"
        yield CheckResult("damaged", "problem", text, f"rm {shlex.quote(str(path))}", facts={"file": str(path)})


def base_learners(runs: Runs, conf: Path) -> Iterator[CheckResult]:
    """List finished base learners, which heads of BAM's kind start from.

    Args:
        runs: what is there.
        conf: folder of the configuration.
    """
    found = [key for key in runs.finished if key.get("method") == "base_learner"]
    for key in found:
        where = {name: key.get(name) for name in ("data", "backbone", "fold")}
        yield CheckResult("base learner", "ok", "{data}, {backbone}, fold {fold}".format(**where), facts=where)
    if not found:
        known = (conf / "method" / "base_learner.yaml").is_file()
        command = typed("-m", "method=base_learner", "fold=0,1,2,3") if known else None
        yield CheckResult("base learner", "note", "none; only heads that build on one need it", command)


def _command(folder: Path) -> str | None:
    """Return the command that started a run, or None where its record cannot be read."""
    import yaml

    try:
        words = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if words is None:
        return program()
    return typed(*map(str, words)) if isinstance(words, list) else None
