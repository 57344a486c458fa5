"""Processes that belong together: none outlives another that was killed, and none waits for it for ever."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from fss.commands import again

LAUNCHER = "FSS_LAUNCHER"
"""Environment variable with the number of the process that started this one, or of this one."""

LOOK_S = 1.0
"""Seconds between two looks at the others."""

GRACE_S = 60.0
"""Seconds that a process has to end by itself, with its own words, once another one has gone."""

_watching = threading.Lock()  # held for good by the one thread that watches the parent
_gone = threading.Event()  # the parent


@contextmanager
def together() -> Iterator[None]:
    """Watch the process that leads, or say that it is this one, while a run is done.

    A process leads if it was neither started by Lightning as one more device of a run, nor by joblib for the runs of a
    sweep. The others end when it is gone; those of joblib write a checkpoint first. What torchrun or SLURM start is
    theirs to end.
    """
    if not _watching.locked() and _of_joblib():
        multiprocessing.set_start_method(None, force=True)  # joblib's own way of starting processes fits only itself
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # joblib kills its processes on Ctrl-C: no time for a checkpoint
        _watch_parent(os.getppid(), stop=lambda: os.kill(os.getpid(), signal.SIGTERM))
    elif not _watching.locked() and os.environ.get("LOCAL_RANK", "0") != "0" and LAUNCHER in os.environ:
        _watch_parent(int(os.environ[LAUNCHER]), stop=lambda: None)
    elif not _watching.locked():
        os.environ[LAUNCHER] = str(os.getpid())
    try:
        yield
    except SystemExit as error:
        if _gone.is_set():  # joblib would take the exception for a result, and begin with the next run
            logging.shutdown()
            os._exit(error.code if isinstance(error.code, int) else 2)
        raise


def observe_devices() -> None:
    """Let Lightning hand the processes that it starts to us: it would kill this one before it can say why."""
    from pytorch_lightning.strategies.launchers import subprocess_script

    subprocess_script._launch_process_observer = _watch_devices  # type: ignore[attr-defined]


def _watch_devices(child_processes: Sequence[subprocess.Popen[Any]]) -> None:
    """End this process some time after another device's process has ended with an error."""

    def watch() -> None:
        while True:
            codes = [process.poll() for process in child_processes]
            if not any(codes):
                if all(code == 0 for code in codes):
                    return
                time.sleep(LOOK_S)
                continue
            rank, code = next((rank, code) for rank, code in enumerate(codes, 1) if code)
            time.sleep(GRACE_S)
            for process in child_processes:
                with suppress(OSError):
                    process.kill()
            _leave(f"The process of device {rank} has ended with code {code}")

    threading.Thread(target=watch, name="devices", daemon=True).start()


def _of_joblib() -> bool:
    return multiprocessing.get_start_method(allow_none=True) == "loky"


def _watch_parent(parent: int, stop: Callable[[], None]) -> None:
    """End this process some time after its parent has ended, whatever it waits for."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_S)
        _gone.set()
        stop()
        time.sleep(GRACE_S)
        _leave(f"Process {parent}, which started this one, has ended")

    _watching.acquire()
    threading.Thread(target=watch, name="parent", daemon=True).start()


def _leave(cause: str) -> None:
    """End the process from a thread, as the main one waits inside a library for what will never come."""
    with suppress(OSError, ValueError):
        sys.stderr.write(
            f"\nError: {cause}; its own log says why, if the system did not kill it for want of memory. This one ends, "
            f"too. The same command continues at the last checkpoint: {again()}\n"
        )
        sys.stderr.flush()
    os._exit(2)
