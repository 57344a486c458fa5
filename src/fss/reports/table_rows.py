"""Which rows of the paper's tables a run belongs to, told from its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fss.reports.paper_tables import PaperTable, Row, cell_overrides, tables
from fss.reports.table_runs import needed_options, setting

TOY = "shapes"
"""The drawn data set, on which any table can be run at toy size."""
TOY_TAG = "toy"
"""What marks such runs, where they stand beside others."""

_TELLING = {
    "method": "{}",
    "backbone": "{}",
    "novel classes": "novel classes {}",
    "test episodes": "{} episodes",
}
"""Facts of a row that its label names where the rows of its table differ in them, and how."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table that a run is part of.

    Attributes:
        table: such as ``table05``.
        row: such as ``t05r06``.
        label: the row in words, unlike any other of the table: ``t05r06 SVF``.
        metric: score that the table prints, ``miou`` or ``fb_iou``.
    """

    table: str
    row: str
    label: str
    metric: str


def table_rows(config: Mapping[str, Any]) -> list[TableRow]:
    """List the rows that a run is part of: several tables share runs.

    Args:
        config: resolved configuration of the run.

    Returns:
        The rows in the order of the tables; none for most runs outside the paper.
    """
    found = []
    for table in tables().values():
        toy = config["data"]["name"] == TOY
        if not toy and config["data"]["name"] != table.data:
            continue
        needed = needed_options(table, toy)
        for row in table.rows:
            wanted = cell_overrides(row, config["shot"], config["fold"])
            if wanted is None or config["shot"] not in row.numbers:
                continue
            if all(setting(config, key) == value for key, value in wanted.items() if key in needed):
                found.append(TableRow(table.name, row.id, label(table, row, config["shot"]), table.metric))
    return found


def label(table: PaperTable, row: Row, shot: int) -> str:
    """Name a row with one number of shots.

    Args:
        table: of the paper.
        row: of this table.
        shot: supports per episode.

    Returns:
        The row's id, what is tuned, and what else tells it from the other rows.
    """
    differing = [fact for fact in _TELLING if len({other.facts[fact] for other in table.rows}) > 1]
    told = [_TELLING[fact].format(row.facts[fact]) for fact in differing]
    shots = [f"{shot} shot{'s' if shot > 1 else ''}"] if len(table.shots) > 1 else []
    return f"{row.id} {', '.join([row.label, *told, *shots])}"
