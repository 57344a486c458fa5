"""The paper's tables as data: every printed number, and the options that each row stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from fss.results import ReportError

FILE = Path(__file__).parent / "data" / "paper.yaml"
FOLDS = (0, 1, 2, 3)
GROUPS = ("data", "method", "backbone", "finetune", "recipe")
"""Override keys that choose a file of ``conf/``."""
TOY = "shapes"
"""Synthetic data set on which any table can be run at toy size."""
Origin = Literal["paper", "quoted", "added"]
"""Who is behind the numbers of a row: the paper's authors, another publication, or nobody, as it is our addition."""


@dataclass(frozen=True)
class Numbers:
    """Printed scores in per cent: one per fold, None if only the mean is printed; all None in an added row."""

    folds: tuple[float | None, ...]
    mean: float | None


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        id: ``tNNrMM``: table and row as printed.
        label: what is done to the backbone.
        overrides: options that the row stands for, without fold and shot; None for a quoted row that is not run.
        facts: column -> text of what distinguishes rows: method, backbone, training, ...
        origin: who is behind its numbers.
        numbers: shot -> printed scores.
        notes: remarks on doubtful prints.
    """

    id: str
    label: str
    overrides: dict[str, Any] | None
    facts: dict[str, str]
    origin: Origin
    numbers: dict[int, Numbers]
    notes: tuple[str, ...]

    @property
    def mark(self) -> str:
        """What stands behind the row's name: nothing, or where its numbers are from."""
        return "" if self.origin == "paper" else f" ({self.origin})"


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper; ``metric`` is ``miou`` or ``fb_iou``."""

    number: int
    title: str
    data: str
    metric: str
    notes: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """Name of its experiment file."""
        return f"table{self.number:02d}"

    @property
    def shots(self) -> tuple[int, ...]:
        """Supports per episode, ascending."""
        return tuple(sorted({shot for row in self.rows for shot in row.numbers}))


@dataclass(frozen=True)
class Cell:
    """One run that a table needs.

    Attributes:
        row: id of its row.
        shot: supports per episode.
        fold: 0 to 3.
        paper: printed score, or None if only the mean is printed.
        overrides: options that determine the run, as ``group=choice`` and ``dotted.key=value``; None for a quoted
            row that is not run.
    """

    row: str
    shot: int
    fold: int
    paper: float | None
    overrides: dict[str, Any] | None

    @property
    def arguments(self) -> list[str]:
        """The overrides as command-line words; empty for a row that is not run."""
        return command(self.overrides or {})


@cache
def tables() -> dict[str, PaperTable]:
    """Return all tables of the paper by name, ``table01`` to ``table24``."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    made = [_table(number, node, content) for number, node in content["tables"].items()]
    return {table.name: table for table in made}


def table(name: str) -> PaperTable:
    """Return one table.

    Args:
        name: table name, e.g. ``table05``.

    Returns:
        The table.

    Raises:
        ReportError: the paper has no such table.
    """
    known = tables()
    if name not in known:
        first, *_, last = known
        raise ReportError(f"{name} is no table of the paper: give {first} to {last}, e.g. fss report table05.")
    return known[name]


def cells(name: str) -> list[Cell]:
    """List the cells of a table: row by row, shot by shot, fold by fold.

    Args:
        name: table name, e.g. ``table05``.

    Returns:
        The cells, including those of quoted rows, and of rows that are added.

    Raises:
        ReportError: the paper has no such table.
    """
    return [
        Cell(row.id, shot, fold, numbers.folds[fold], cell_overrides(row, shot, fold))
        for row in table(name).rows
        for shot, numbers in row.numbers.items()
        for fold in FOLDS
    ]


def cell_overrides(row: Row, shot: int, fold: int) -> dict[str, Any] | None:
    """Return the options of one cell.

    Args:
        row: row of a table.
        shot: supports per episode.
        fold: 0 to 3.

    Returns:
        Option -> value, or None for a quoted row that is not run.
    """
    return None if row.overrides is None else {**row.overrides, "shot": shot, "fold": fold}


def command(overrides: Mapping[str, Any]) -> list[str]:
    """Return the options of a cell as words of a command line.

    Args:
        overrides: option -> value.
    """
    return [f"{key}={_word(value)}" for key, value in overrides.items()]


def _table(number: int, node: Mapping[str, Any], content: Mapping[str, Any]) -> PaperTable:
    data = node.get("data", "pascal")
    rows = tuple(_row(row, data, content) for row in node["rows"])
    return PaperTable(number, node["title"], data, node.get("metric", "miou"), tuple(node.get("notes", ())), rows)


def _row(node: Mapping[Any, Any], data: str, content: Mapping[str, Any]) -> Row:
    method, backbone = node.get("method", "baseline"), node.get("backbone", "resnet50")
    strategy = content["strategies"][node["tune"]]
    training = node.get("training", strategy.get("training", "ours"))
    novel, episodes, added = node.get("novel", "drop"), node.get("episodes", 1000), node.get("added", ())
    origin: Origin = "added" if added else "quoted" if node.get("quoted", False) else "paper"
    overrides = {
        "data": data,
        "method": method,
        "backbone": backbone,
        **strategy["options"],
        **_recipe(training, method, data, content),
        "data.novel_images": novel,
        "data.test_episodes": episodes,
    }
    facts = {
        "method": method,
        "backbone": backbone,
        "novel classes": {"drop": "dropped", "keep": "kept"}[novel],
        "training": "SVF paper" if training == "ours" else training,
        "test episodes": f"{episodes:,}",
    }
    notes = [content["marks"][node["mark"]]] if "mark" in node else []
    notes += [node["note"]] if "note" in node else []
    notes += [content["marks"]["added"]] if added else []
    numbers = {shot: _numbers(node[shot]) for shot in (1, 5) if shot in node}
    numbers |= {shot: Numbers((None,) * len(FOLDS), None) for shot in added}
    runs = origin != "quoted" or node.get("run", False)
    return Row(node["id"], strategy["label"], overrides if runs else None, facts, origin, numbers, tuple(notes))


def _recipe(training: str, method: str, data: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe options of "ours", or of the training that a method was published with."""
    recipes = content["recipes"]
    if training != "original":
        return dict(recipes[training])
    return dict(recipes.get(f"{method} {data}") or recipes.get(method) or recipes["original"])


def _numbers(printed: list[float]) -> Numbers:
    *folds, mean = printed
    return Numbers(tuple(folds) if folds else (None,) * len(FOLDS), mean)


def _word(value: Any) -> str:
    """Format a value as on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
