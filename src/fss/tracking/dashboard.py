"""W&B dashboard of the paper's tables as plain values; imports no wandb and makes no request.

A panel or block is written ``{"BarPlot": {"title": ...}}``: the name of a wandb-workspaces class, and its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fss.reports.paper_tables import PaperTable
from fss.reports.table_rows import TOY_TAG, label

Block = dict[str, dict[str, Any]]

FORMAT = 1
SIZES = ("full", "smoke")
TITLE = "Tables of Singular Value Fine-tuning"

_STEP, _EPOCH = "trainer/global_step", "epoch"


def specification(tables: Sequence[PaperTable], entity: str, project: str, size: str) -> dict[str, Any]:
    """Describe a workspace and a report with one section per table, averaged over folds and seeds.

    Args:
        tables: tables of the paper.
        entity: W&B user or team.
        project: W&B project of the runs.
        size: ``full``, or ``smoke`` for toy-size runs.

    Returns:
        Plain values: ``format``, ``entity``, ``project``, and the objects ``workspace`` and ``report``.
    """
    destination = {"entity": entity, "project": project}
    title = TITLE if size == "full" else f"{TITLE}, toy size"
    runs = _run_filter(size)
    sections = [_section(table) for table in tables]
    workspace = {
        **destination,
        "name": title,
        "sections": [*sections, _strategies(), _training_curves(), _spectra(), _episodes()],
        "settings": {"WorkspaceSettings": {"x_axis": _STEP, "max_runs": 100}},
        "runset_settings": {"RunsetSettings": {"filters": runs, "pinned_columns": list(_COLUMNS)}},
    }
    blocks: list[Block] = [{"P": {"text": _preface(size)}}, {"TableOfContents": {}}]
    for table in tables:
        blocks += _blocks(table, destination, runs)
    report = {**destination, "title": title, "description": _preface(size), "blocks": blocks, "width": "fluid"}
    return {"format": FORMAT, **destination, "workspace": {"Workspace": workspace}, "report": {"Report": report}}


_COLUMNS = (
    "run:displayName", "run:jobType", "config:method.value.name", "config:backbone.value.name", "config:fold.value",
    "config:shot.value", "summary:test/miou", "summary:test/fb_iou", "summary:trained_values",
)  # fmt: skip
"""Pinned columns of the list of runs."""


def _run_filter(size: str) -> str:
    """Return the filter of runs, which never mixes toy runs with others."""
    return f"Tags {'in' if size == 'smoke' else 'not in'} ['{TOY_TAG}'] and State == 'finished'"


def _bars(table: PaperTable, **extra: Any) -> Block:
    """Draw a table: one bar per row, the mean over its runs. Only runs of the table log this value."""
    names = {"miou": "mIoU", "fb_iou": "FB-IoU"}
    arguments = {
        "title": f"Table {table.number}: {names[table.metric]} %, mean over folds and seeds",
        "metrics": [f"tables/{table.name}"],
        "groupby": _row(table),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "minmax",
        "orientation": "h",
        "max_bars_to_show": 50,
        "max_runs_to_show": 1000,
        **extra,
    }
    return {"BarPlot": arguments}


def _row(table: PaperTable) -> Block:
    return {"Config": {"name": f"tables.{table.name}"}}


def _layout(x: int, y: int, w: int, h: int) -> Block:
    return {"Layout": {"x": x, "y": y, "w": w, "h": h}}


def _section(table: PaperTable) -> Block:
    name = f"Table {table.number}: {table.title}"
    layout = {"SectionLayoutSettings": {"columns": 1, "rows": 1}}
    return {"Section": {"name": name, "panels": [_bars(table)], "is_open": True, "layout_settings": layout}}


def _strategies() -> Block:
    panels: list[Block] = [
        {
            "BarPlot": {
                "title": "mIoU % by strategy",
                "metrics": ["test/miou"],
                "groupby": "JobType",
                "groupby_aggfunc": "mean",
                "groupby_rangefunc": "minmax",
                "max_runs_to_show": 1000,
            }
        },
        {
            "BarPlot": {
                "title": "mIoU % by cell: runs that differ in fold and seed alone",
                "metrics": ["test/miou"],
                "groupby": {"Config": {"name": "cell"}},
                "groupby_aggfunc": "mean",
                "groupby_rangefunc": "minmax",
                "max_runs_to_show": 1000,
            }
        },
        {
            "ScatterPlot": {
                "title": "mIoU % over trained values of the backbone",
                "x": {"SummaryMetric": {"name": "trained_values"}},
                "y": {"SummaryMetric": {"name": "test/miou"}},
                "log_x": True,
            }
        },
    ]
    return {"Section": {"name": "Strategies", "panels": panels, "is_open": True}}


def _training_curves() -> Block:
    metrics = [("Novel mIoU %", "val/miou", _EPOCH), ("Training mIoU %", "train/miou", _EPOCH)]
    metrics += [("Validation loss", "val/loss", _EPOCH), ("Training loss", "train/loss_total", _STEP)]
    panels = [_curve(title, name, x, "JobType") for title, name, x in metrics]
    return {"Section": {"name": "Training", "panels": panels}}


def _curve(title: str, name: str, x: str, groupby: str | Block, **extra: Any) -> Block:
    arguments = {
        "title": f"{title}, mean over the group", "x": x, "y": [name],
        "groupby": groupby, "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax", "max_runs_to_show": 1000,
    }  # fmt: skip
    return {"LinePlot": {**arguments, **extra}}


def _spectra() -> Block:
    panels = [{"WeavePanelSummaryTable": {"table_name": "test/spectra"}}]
    return {"Section": {"name": "Singular values", "panels": panels}}


def _episodes() -> Block:
    panels: list[Block] = [
        {"MediaBrowser": {"title": "Test episodes", "media_keys": ["test/episodes"], "num_columns": 3}},
        {"MediaBrowser": {"title": "Their supports", "media_keys": ["test/supports"], "num_columns": 3}},
        {"WeavePanelSummaryTable": {"table_name": "test/classes"}},
        {"RunComparer": {"diff_only": "split"}},
    ]
    return {"Section": {"name": "Episodes and classes", "panels": panels}}


def _blocks(table: PaperTable, destination: dict[str, str], runs: str) -> list[Block]:
    """Return a table's part of the report: the paper's numbers and our runs."""
    runset = {
        **destination,
        "name": f"Table {table.number}",
        "filters": f"{runs} and Tags in ['{table.name}']",
        "groupby": [f"config.tables.{table.name}"],
    }
    curve = _curve("Novel mIoU %", "val/miou", _EPOCH, _row(table), layout=_layout(12, 0, 12, 10))
    grid = {"runsets": [{"Runset": runset}], "panels": [_bars(table, layout=_layout(0, 0, 12, 10)), curve]}
    return [
        {"H2": {"text": f"Table {table.number}: {table.title}"}},
        {"MarkdownBlock": {"text": printed(table)}},
        {"PanelGrid": grid},
    ]


def printed(table: PaperTable) -> str:
    """Format the paper's numbers as Markdown, with the row names that the runs have.

    Args:
        table: table of the paper.

    Returns:
        One line per row and number of shots.
    """
    lines = ["| row | the paper's mean |", "| :-- | --: |"]
    for row in table.rows:
        for shot, numbers in row.numbers.items():
            mean = "" if numbers.mean is None else f"{numbers.mean:.2f}"
            lines.append(f"| {label(table, row, shot)}{row.mark} | {mean} |")
    return "\n".join(lines)


def _preface(size: str) -> str:
    toy = " Runs of toy size: they show that everything works, and are not comparable to the paper." * (size == "smoke")
    return (
        "Bars are means over the folds and seeds that have run; their whiskers span least and greatest. A row with "
        f"fewer than four folds is not comparable to the paper's mean.{toy}"
    )
