"""Programs in forked processes that have imported everything before: fast to start, and safe to kill."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import resource
import runpy
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_HEAVY = (
    "torch", "pytorch_lightning", "torchmetrics", "albumentations", "hydra", "rich.progress", "fss.model.build",
    "fss.tracking.loggers", "fss.runs.train", "fss.cli.main", "fss.model.checkpoint", "fss.lit.callbacks.result",
    "fss.lit.callbacks.snapshots", "fss.lit.callbacks.previews", "fss.reports.preview_grid",
    "fss.reports.strategy_table", "fss.data.shapes.write",
)  # fmt: skip

TINY = (
    "data=shapes", "backbone=resnet18", "backbone.width=8", "backbone.weights=none", "method.width=8", "data.size=65",
    "workers=0", "trainer=cpu", "trainer.enable_progress_bar=false",
)  # fmt: skip
"""Options of the smallest model that learns something."""

_NUMBER = itertools.count()


class Program:
    """A program that runs in a process of its own.

    Args:
        home: its working directory; output goes to ``out-N.txt`` below it.
        program: ``train.py``, ``eval.py`` or ``fss``.
        arguments: of the command line.
        environment: changes of the environment.
    """

    def __init__(self, home: Path, program: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_HEAVY))
        self.output = home / f"out-{next(_NUMBER)}.txt"
        more = {"FSS_CACHE": str(home / "cache"), "WANDB_MODE": "disabled", **(environment or {})}
        self.process = context.Process(target=_run, args=(str(home), str(self.output), program, arguments, more))
        self.process.start()

    def wait(self, seconds: float = 300) -> int:
        """Return the exit code; a program that does not end in time is killed and fails the test."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"no end after {seconds} s: {self.text()}")
        return self.process.exitcode

    def alive_after(self, seconds: float) -> bool:
        """Tell whether it still runs after a while."""
        self.process.join(seconds)
        return self.process.exitcode is None

    def kill(self, signum: int) -> None:
        """Send a signal."""
        if self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, signum)

    def text(self) -> str:
        """Return what it has printed."""
        return self.output.read_text(errors="replace") if self.output.is_file() else ""


def call(home: Path, program: str, *arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a program to its end; return exit code and output."""
    running = Program(home, program, *arguments, environment=environment)
    return running.wait(), running.text()


def _run(home: str, output: str, program: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    multiprocessing.set_start_method("fork", force=True)  # loader workers would inherit "forkserver" and import anew
    os.chdir(home)
    os.environ.update(environment)
    if "FSS_TEST_FILE_BYTES" in environment:  # writing more than that into a file fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(environment["FSS_TEST_FILE_BYTES"]),) * 2)
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    for name, number in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, io.TextIOWrapper(os.fdopen(os.dup(number), "wb"), line_buffering=True))
    sys.argv = [program, *arguments]
    code = 0
    try:
        if program == "fss":
            from fss.cli.main import app

            app()
        else:
            sys.argv[0] = str(ROOT / program)
            sys.path.insert(0, str(ROOT))
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
