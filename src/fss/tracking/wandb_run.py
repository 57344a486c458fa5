"""Start and finish W&B runs, so that neither can stop or stall a training."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fss.errors import first_line
from fss.tracking.wandb_mode import has_key

log = logging.getLogger(__name__)

LIMITS = {"init_timeout": 20.0, "finish_timeout": 120.0}
"""Seconds that W&B may take to respond at the start and to finish uploads at the end; the environment variables
``WANDB_INIT_TIMEOUT`` and ``WANDB_FINISH_TIMEOUT`` take precedence."""

_DATA = "WANDB_DATA_DIR"
_MARK = os.path.join("wandb", "data")
_refused: str | None = None  # why W&B could not be used; later runs of this process do not wait for it again


def start(folder: Path, online: bool, arguments: dict[str, Any]) -> Any:
    """Start a run, offline if W&B does not respond in time or refuses it.

    Args:
        folder: run folder; everything that W&B writes goes below its ``wandb``.
        online: whether to try to reach W&B.
        arguments: arguments of ``wandb.init``.

    Returns:
        The W&B run.
    """
    import wandb

    global _refused
    folder.mkdir(parents=True, exist_ok=True)
    _keep_files_in(folder)
    limits: dict[str, Any] = {
        name: value for name, value in LIMITS.items() if f"WANDB_{name.upper()}" not in os.environ
    }
    arguments = {**arguments, "dir": str(folder), "reinit": "finish_previous"}
    if online and _refused is None and not has_key():
        _refused = "no key is set (wandb login)"  # in a terminal W&B would prompt for one, and wait
    if online and _refused is None:
        before = set(_runs(folder))
        try:
            return wandb.init(**arguments, mode="online", settings=wandb.Settings(**limits))
        except Exception as error:  # no network, unknown server, invalid key, bug in W&B
            _refused = first_line(error).rstrip(".")
            _end_service()  # the service still holds the run's id
            for path in set(_runs(folder)) - before:
                shutil.rmtree(path, ignore_errors=True)
    if "WANDB_QUIET" not in os.environ:
        limits["quiet"] = True  # otherwise it prints all values again, below our table
    try:
        run = wandb.init(**arguments, mode="offline", settings=wandb.Settings(**limits))
    except Exception:  # the W&B service of this process's earlier runs has died
        _end_service()
        run = wandb.init(**arguments, mode="offline", settings=wandb.Settings(**limits))
    _log_location(Path(run.dir).parent, online)
    return run


def _log_location(folder: Path, online: bool) -> None:
    """Log where an offline run is, and how to upload it."""
    if online:
        log.warning(
            "W&B cannot be used: %s. The training goes on and is logged offline; upload it later with: wandb sync %s "
            "(a key that is not accepted: wandb login --relogin; without W&B: logger.wandb=disabled)",
            _refused, folder,
        )  # fmt: skip
    else:
        log.info("W&B: logged offline; upload it with: wandb sync %s", folder)


@contextmanager
def finishing() -> Iterator[None]:
    """Finish the W&B run of this process after the block, as failed if the block raises."""
    try:
        yield
    except BaseException:
        finish(1)
        raise
    finish(0)


def finish(code: int = 0) -> None:
    """Finish the W&B run of this process, if any.

    Args:
        code: exit code; 0 for a completed run.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or getattr(wandb, "run", None) is None:
        return
    try:
        wandb.finish(exit_code=code)
    except Exception as error:  # the result is written; failing to close a log must not fail the run
        log.warning("W&B could not close its log: %s", first_line(error))


def _keep_files_in(folder: Path) -> None:
    """Stage artifact uploads inside the run folder, as the home folder may be small or read-only."""
    current = os.environ.get(_DATA)
    if current is None or current.endswith(_MARK):
        os.environ[_DATA] = str(folder.resolve() / _MARK)


def _end_service() -> None:
    """Stop W&B's service process; the next run starts a new one."""
    with suppress(Exception):
        sys.modules["wandb"].teardown(1)


def _runs(folder: Path) -> list[Path]:
    return [path for path in (folder / "wandb").glob("run-*") if path.is_dir()]
