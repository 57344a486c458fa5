"""Which rows of the paper's tables a run belongs to, derived from its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fss.reports.paper_tables import TOY, PaperTable, Row, cell_overrides, tables
from fss.reports.table_runs import needed_options, setting

TOY_TAG = "toy"
"""W&B tag of toy-size runs, which sets them apart from the others."""

_LABEL_FORMATS = {
    "method": "{}",
    "backbone": "{}",
    "novel classes": "novel classes {}",
    "test episodes": "{} episodes",
}
"""Facts of a row that its label names if the rows of its table differ in them, with their format."""


@dataclass(frozen=True)
class TableRow:
    """A table row that a run belongs to.

    Attributes:
        table: name, e.g. ``table05``.
        row: id, e.g. ``t05r06``.
        label: description that is unique within the table, e.g. ``t05r06 SVF``.
        metric: score that the table reports, ``miou`` or ``fb_iou``.
    """

    table: str
    row: str
    label: str
    metric: str


def table_rows(config: Mapping[str, Any]) -> list[TableRow]:
    """List the table rows that a run belongs to; several tables share runs.

    Args:
        config: resolved configuration of the run.

    Returns:
        The rows in the order of the tables; empty for most runs that are not in the paper.
    """
    rows_found = []
    for table in tables().values():
        toy = config["data"]["name"] == TOY
        if not toy and config["data"]["name"] != table.data:
            continue
        needed = needed_options(table, toy)
        for row in table.rows:
            overrides = cell_overrides(row, config["shot"], config["fold"])
            if overrides is None or config["shot"] not in row.numbers:
                continue
            if all(setting(config, key) == value for key, value in overrides.items() if key in needed):
                rows_found.append(TableRow(table.name, row.id, label(table, row, config["shot"]), table.metric))
    return rows_found


def label(table: PaperTable, row: Row, shot: int) -> str:
    """Describe a row at one number of shots.

    Args:
        table: table of the paper.
        row: row of this table.
        shot: supports per episode.

    Returns:
        The row's id, its strategy, and whatever else distinguishes it from the other rows.
    """
    differing = [fact for fact in _LABEL_FORMATS if len({other.facts[fact] for other in table.rows}) > 1]
    details = [_LABEL_FORMATS[fact].format(row.facts[fact]) for fact in differing]
    shots = [f"{shot} shot{'s' if shot > 1 else ''}"] if len(table.shots) > 1 else []
    return f"{row.id} {', '.join([row.label, *details, *shots])}"
