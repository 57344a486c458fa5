"""Heads against strategies: one row per head, one column per strategy, means over folds and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from fss.reports.comparison_table import Sheet
from fss.reports.option_differences import uneven_options
from fss.results import ReportError, Result

_LEARNER = "base_learner"
"""The method that is trained for heads and is none."""
_SETTING = ("data", "backbone", "shot", "recipe", "test")
"""Fields of the result key that split rows; those that differ become columns."""

Folds = dict[int, dict[int, Result]]
"""fold -> seed -> run."""


def compares_heads(results: Sequence[Result]) -> bool:
    """Tell whether there are runs of several heads.

    Args:
        results: finished runs.
    """
    return len({run.key.method for run in _of_heads(results)}) > 1


def head_table(results: Sequence[Result]) -> Sheet:
    """Compare heads: mIoU as the mean over folds of the mean over seeds.

    Args:
        results: finished runs; base learners are left out.

    Returns:
        One row per head and setting. A mean of fewer folds than other cells have names its folds.

    Raises:
        ReportError: two runs differ in nothing that the table shows.
    """
    runs = _of_heads(results)
    columns = [field for field in _SETTING if len({getattr(run.key, field) for run in runs}) > 1]
    strategies = [s for _, s in sorted({(run.parameters.backbone_trainable > 0, run.key.finetune) for run in runs})]
    strategies = list(dict.fromkeys(strategies))
    cells: dict[tuple[str, ...], dict[str, Folds]] = {}
    for run in runs:
        row = (run.key.method, *(str(getattr(run.key, field)) for field in columns))
        seeds = cells.setdefault(row, {}).setdefault(run.key.finetune, {}).setdefault(run.key.fold, {})
        other = seeds.setdefault(run.key.seed, run)
        if other.identity != run.identity:
            raise ReportError(
                f"{other.path} and {run.path} are different runs of {' '.join(row)} {run.key.finetune}, fold "
                f"{run.key.fold}, seed {run.key.seed}: keep one of them in the folder, or report folders apart."
            )
    folds = sorted({run.key.fold for run in runs})
    rows = [[*row, *(_cell(own.get(name, {}), folds) for name in strategies)] for row, own in sorted(cells.items())]
    names = ", ".join(sorted({run.key.data for run in runs}))
    several = "s" if len(folds) > 1 else ""
    heading = f"Heads on {names}, fold{several} {', '.join(map(str, folds))} (mIoU, %)"
    return Sheet(heading, 1 + len(columns), ["head", *columns, *strategies], rows, _notes(runs), [], _warnings(runs))


def _of_heads(results: Sequence[Result]) -> list[Result]:
    return [run for run in results if run.key.method != _LEARNER]


def _cell(runs: Folds, folds: Sequence[int]) -> str:
    """Return a mean over folds; nothing without runs."""
    if not runs:
        return ""
    score = mean(mean(run.scores.miou for run in seeds.values()) for seeds in runs.values())
    missing = sorted(runs) != list(folds)
    return f"{score:.2f}" + (f" (fold {', '.join(map(str, sorted(runs)))} alone)" if missing else "")


def _notes(runs: Sequence[Result]) -> list[str]:
    """Say what the numbers are, and what a head has to exceed."""
    seeds = ", ".join(map(str, sorted({run.key.seed for run in runs})))
    counts = ", ".join(f"{count:,}" for count in sorted({run.episodes.count for run in runs}))
    rules = ", ".join(sorted({run.selection.rule for run in runs}))
    notes = [f"Means over folds and seeds {seeds}, tested on {counts} episodes per fold, checkpoint selection {rules}."]
    protocols = sorted({str(run.config.get("protocol", {}).get("name")) for run in runs} - {"None"})
    recipes = sorted({run.key.recipe for run in runs})
    notes += [f"Protocol {', '.join(protocols)}; recipe {', '.join(recipes)}."] if protocols else []
    everywhere: dict[tuple[str, int, int, str], float] = {}
    for run in runs:
        if run.scores.miou_all_foreground is not None:
            key = (run.key.data, run.key.fold, run.key.shot, run.key.test)
            everywhere[key] = run.scores.miou_all_foreground
    if everywhere:
        low, high = min(everywhere.values()), max(everywhere.values())
        span = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}, by fold and shots"
        notes.append(f"Foreground everywhere scores {span}.")
    return notes


def _warnings(runs: Sequence[Result]) -> list[str]:
    """Say what makes the comparison uneven."""
    hashes: dict[tuple[str, int, int, str], set[str]] = {}
    for run in runs:
        key = run.key
        hashes.setdefault((key.data, key.fold, key.shot, key.test), set()).add(run.episodes.hash)
    found = ["heads were not tested on the same episodes"] if any(len(h) > 1 for h in hashes.values()) else []
    return found + [f"heads differ in more than the head: {told}" for told in uneven_options(runs, "method")]
