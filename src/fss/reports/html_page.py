"""Self-contained HTML page of tables: sortable, with the previews and curves of every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fss.reports.comparison_table import NOT_RUN, fact, fact_columns, heading, notes, number
from fss.reports.html_previews import curve, preview_strip
from fss.reports.paper_tables import FOLDS
from fss.reports.table_runs import FilledTable, Line, setting
from fss.results import Result

_FOLDER = Path(__file__).parent / "data"
_CURVES = (("training loss", "train/loss_total"), ("validation mIoU", "val/miou"))


@dataclass(frozen=True)
class PageCell:
    """One cell: ``sort`` is its sort key; ``paper`` and ``gap`` are shown in small print below."""

    name: str
    text: str
    sort: str
    paper: str = ""
    gap: str = ""
    words: bool = False


@dataclass(frozen=True)
class PageRun:
    """One run on the page."""

    title: str
    score: str
    facts: list[tuple[str, str]]
    previews: str | None
    curves: list[tuple[str, Markup]]


@dataclass(frozen=True)
class PageTable:
    """One table on the page."""

    name: str
    heading: str
    toy: bool
    columns: list[str]
    rows: list[list[PageCell]]
    notes: list[str]
    warnings: list[str]
    runs: list[PageRun]


def html_page(filled: Sequence[FilledTable], title: str) -> str:
    """Render the page.

    Args:
        filled: tables with our runs.
        title: page title.

    Returns:
        HTML with styles, script and all images inlined.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    return template.render(title=title, tables=[_table(one) for one in filled])


def _table(filled: FilledTable) -> PageTable:
    facts = fact_columns(filled.table)
    rows = [_cells(line, facts, filled) for line in filled.lines]
    columns = [cell.name for cell in rows[0]]
    runs = [_run(line, run) for line in filled.lines for run in line.results]
    below = [*filled.below(), *notes(filled)]
    return PageTable(filled.table.name, heading(filled), filled.toy, columns, rows, below, list(filled.warnings), runs)


def _cells(line: Line, facts: Sequence[str], filled: FilledTable) -> list[PageCell]:
    """Return the cells of one line."""
    row_id = line.row.id + "*" * bool(line.row.notes)
    cells = [PageCell("row", row_id + line.row.mark, line.row.id, words=True)]
    cells += [PageCell(name, fact(line, name), fact(line, name), words=True) for name in facts]
    ours, papers = (*line.folds, line.mean), (*line.paper.folds, line.paper.mean)
    for fold, score, paper in zip((*FOLDS, None), ours, papers, strict=True):
        name = "mean" if fold is None else f"fold {fold}"
        half_width = line.half_interval if fold is None else None
        printed = None if filled.toy else paper
        sort_key = score if score is not None else printed
        gap = "" if score is None or printed is None else f"{score - printed:+.2f}"
        text = number(score, half=half_width, mark=filled.mark(line, fold)) or (NOT_RUN if name == "mean" else "")
        cells.append(PageCell(name, text, "" if sort_key is None else str(sort_key), number(printed), gap))
    return [*cells, PageCell("seeds", " ".join(map(str, line.seeds)), str(len(line.seeds)))]


def _class(run: Result, name: str) -> str:
    score = run.scores.per_class[name]
    note = " (not in the mean)" if name in (run.scores.left_out or {}) else ""
    return f"{name} {'-' if score is None else f'{score:.1f}'}{note}"


def _run(line: Line, run: Result) -> PageRun:
    key = run.key
    title = f"{line.row.id}, {line.row.label}, {line.shot}-shot, fold {key.fold}, seed {key.seed}"
    trained = run.parameters.backbone_trainable
    facts = [
        ("method, backbone", f"{key.method}, {key.backbone}, weights {setting(run.config, 'backbone.weights')}"),
        ("backbone values trained", f"{trained:,} of {run.parameters.backbone_total:,}"),
        ("recipe", f"{key.recipe}, batch {setting(run.config, 'recipe.batch_size')}"),
        ("data", f"{key.data}, {run.episodes.count:,} test episodes ({run.episodes.sampler})"),
        ("mIoU, FB-IoU", f"{run.scores.miou:.2f}, {run.scores.fb_iou:.2f}"),
        ("selection", run.selection.note),
        ("classes", ", ".join(_class(run, name) for name in run.scores.per_class)),
        ("folder", str(run.folder)),
        ("commit", run.commit or "unknown"),
    ]
    drawn = [(name, curve(run.folder, column)) for name, column in _CURVES]
    curves = [(name, Markup(svg)) for name, svg in drawn if svg is not None]  # safe: only numbers and our own labels
    score = run.scores.fb_iou if line.metric == "fb_iou" else run.scores.miou
    return PageRun(title, f"{score:.2f}", facts, preview_strip(run.folder), curves)
