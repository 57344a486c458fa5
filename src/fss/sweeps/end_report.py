"""End of a sweep: names the failed runs and exits with a non-zero status."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import shorten
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fss.config.base_learner import RUNS
from fss.runs.attempts import begin_sweep, failures


class SweepEnd(Callback):
    """Hydra callback around a sweep, registered in ``hydra.callbacks``."""

    def __init__(self) -> None:
        """Start without a sweep."""
        self.sweep: str | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Assign an id to the sweep."""
        self.sweep = begin_sweep()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the failed runs, if any, and exit with status 2."""
        if self.sweep is None:
            return
        failed = failures({RUNS, Path(config.hydra.sweep.dir)}, self.sweep)
        if not failed:
            return
        lines = "\n".join(f"  {name}: {shorten(error, 160)}" for name, error in failed)
        sys.stderr.write(
            f"\nError: {len(failed)} of this sweep's runs failed; the others are done:\n{lines}\n"
            "The same command tries them again. Look at all of them with: fss sweep status and the same options.\n"
        )
        sys.exit(2)
