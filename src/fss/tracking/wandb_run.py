"""Begin and end a run at W&B, so that neither can stop or hold up a training."""

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
"""Seconds that W&B may take to answer at the start and to take the rest at the end; the environment variables
``WANDB_INIT_TIMEOUT`` and ``WANDB_FINISH_TIMEOUT`` win."""

_DATA = "WANDB_DATA_DIR"
_MARK = os.path.join("wandb", "data")
_refused: str | None = None  # why W&B could not be used: the next runs of this process do not wait for it again


def start(folder: Path, online: bool, arguments: dict[str, Any]) -> Any:
    """Begin a run; offline where W&B does not answer in time or refuses it.

    Args:
        folder: of the run; everything that W&B writes goes below ``wandb`` there.
        online: try to reach W&B.
        arguments: of ``wandb.init``.

    Returns:
        W&B's run.
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
        _refused = "no key is set (wandb login)"  # in a terminal W&B would ask for one, and wait
    if online and _refused is None:
        before = set(_runs(folder))
        try:
            return wandb.init(**arguments, mode="online", settings=wandb.Settings(**limits))
        except Exception as error:  # no network, no such server, a key that is not valid, a defect of W&B's own
            _refused = first_line(error).rstrip(".")
            _end_service()  # it holds the run's id
            for path in set(_runs(folder)) - before:
                shutil.rmtree(path, ignore_errors=True)
    if "WANDB_QUIET" not in os.environ:
        limits["quiet"] = True  # else it prints all of the run's values again, below our table
    try:
        run = wandb.init(**arguments, mode="offline", settings=wandb.Settings(**limits))
    except Exception:  # the service that earlier runs of this process used has died
        _end_service()
        run = wandb.init(**arguments, mode="offline", settings=wandb.Settings(**limits))
    _tell(Path(run.dir).parent, online)
    return run


def _tell(folder: Path, online: bool) -> None:
    """Say where an offline run is, and how it is uploaded."""
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
    """End the W&B run of this process with the block, as failed if the block ends with an error."""
    try:
        yield
    except BaseException:
        finish(1)
        raise
    finish(0)


def finish(code: int = 0) -> None:
    """End the W&B run of this process, if there is one.

    Args:
        code: 0 for a run that has come to its end.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or getattr(wandb, "run", None) is None:
        return
    try:
        wandb.finish(exit_code=code)
    except Exception as error:  # the result is written; a log that cannot be closed must not turn it into a failure
        log.warning("W&B could not close its log: %s", first_line(error))


def _keep_files_in(folder: Path) -> None:
    """Have artifacts wait for their upload beside the run: the home folder may be small, or read-only."""
    known = os.environ.get(_DATA)
    if known is None or known.endswith(_MARK):
        os.environ[_DATA] = str(folder.resolve() / _MARK)


def _end_service() -> None:
    """End W&B's own process; the next run starts another one."""
    with suppress(Exception):
        sys.modules["wandb"].teardown(1)


def _runs(folder: Path) -> list[Path]:
    return [path for path in (folder / "wandb").glob("run-*") if path.is_dir()]
