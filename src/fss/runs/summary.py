"""Print the scores of a finished run."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console

from fss.reports.strategy_table import strategy_table
from fss.results import load_result

log = logging.getLogger(__name__)

_BRANCHES = {
    "miou_m": "of the meta learner alone",
    "miou_b": "of the base learner on base classes",
    "miou_base": "of the base classes",
    "miou_novel": "of the novel classes",
}


def show(folder: Path) -> None:
    """Print a run's scores.

    Args:
        folder: the run's folder.
    """
    result = load_result(folder / "result.json")
    Console().print(strategy_table([result]))
    branches = {name: getattr(result.scores, key) for key, name in _BRANCHES.items()}
    known = [f"{name} {value:.2f}" for name, value in branches.items() if value is not None]
    if known:
        log.info("mIoU: %s", ", ".join(known))
    log.info("Result: %s", folder / "result.json")
