"""Numbers of released networks, read from the Markdown tables of this folder."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
Numbers = tuple[float, ...]
Row = dict[str, str]
PRINTED = 6e-9
"""Largest relative deviation that may be: the tables have nine digits."""
_NUMBER = re.compile(r"-?\d\.\d+(?:e[-+]\d+)?")


def rows(text: str) -> list[list[Row]]:
    """Read all tables, each as rows: name of the column -> cell."""
    found: list[list[Row]] = []
    head: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if head is None:
            head = cells
            found.append([])
        elif not all(re.fullmatch(":?-+:?", c) for c in cells):
            found[-1].append(dict(zip(head, cells, strict=True)))
    return found


def of(name: str) -> list[list[Row]]:
    """Read the tables of one network."""
    return rows((FOLDER / f"{name}.md").read_text())


def numbers(row: Row, *columns: str) -> Numbers:
    """Return every number of these columns, in order."""
    return tuple(float(n) for c in columns for n in _NUMBER.findall(row[c]))


def deviation(got: Numbers, expected: Numbers) -> float:
    """Return the largest relative deviation; absolute where a rectified value is zero."""
    return max((abs(g - e) / (abs(e) or 1) for g, e in zip(got, expected, strict=True)), default=0.0)
