"""The paper's tables beside our results, for the terminal and as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from fss.reports.paper_tables import FOLDS, PaperTable
from fss.reports.table_runs import FilledTable, Line

NOT_RUN = "not run"
_METRICS = {"miou": "mIoU", "fb_iou": "FB-IoU"}
_TEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "{": r"\{", "}": r"\}", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "ᵀ": r"$^\top$", "±": r"$\pm$",
}  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Attributes:
        heading: title, and whether the numbers are comparable to the paper.
        left: number of leading, left-aligned text columns.
        header: column names.
        rows: cells.
        notes: doubts about the printed numbers, and what ours are.
        marks: how runs differ from the table's own protocol, a line for each mark at our numbers.
        warnings: what limits the comparison, see :class:`FilledTable`.
    """

    heading: str
    left: int
    header: list[str]
    rows: list[list[str]]
    notes: list[str]
    marks: list[str]
    warnings: list[str]


def sheet(filled: FilledTable) -> Sheet:
    """Lay out a table as text: per row the paper's numbers, and below them ours with the difference.

    Args:
        filled: table with our runs; for toy runs only ours are shown.

    Returns:
        The text of every cell.
    """
    table = filled.table
    facts = fact_columns(table)
    header = ["row", *facts, "from", *(f"fold {fold}" for fold in FOLDS), "mean", "seeds"]
    rows = []
    for line in filled.lines:
        words = [line.row.id + "*" * bool(line.row.notes), *(fact(line, name) for name in facts)]
        if not filled.toy and line.row.origin != "added":
            printed = [number(score) for score in (*line.paper.folds, line.paper.mean)]
            rows.append([*words, line.row.origin, *printed, ""])
            words = [""] * len(words)
        rows.append([*words, "ours", *_ours(line, filled)])
    below = filled.below()
    return Sheet(heading(filled), len(facts) + 2, header, rows, notes(filled), below, list(filled.warnings))


def heading(filled: FilledTable) -> str:
    """Return the title of a table, marked if its runs are of toy size.

    Args:
        filled: table with our runs.
    """
    title = f"Table {filled.table.number}: {filled.table.title} ({_METRICS[filled.table.metric]}, %)"
    datas = sorted({run.key.data for line in filled.lines for run in line.results})
    return f"{title} - TOY SIZE on {', '.join(datas)}, not comparable with the paper" if filled.toy else title


def notes(filled: FilledTable) -> list[str]:
    """Return the footnotes of a table.

    Args:
        filled: table with our runs.
    """
    by_text: dict[str, list[str]] = {}
    for row in filled.table.rows:
        for text in row.notes:
            by_text.setdefault(text, []).append(row.id)
    paper_notes = [*filled.table.notes, *(f"{', '.join(ids)}: {text}" for text, ids in by_text.items())]
    results = [run for line in filled.lines for run in line.results]
    if not results:
        return paper_notes
    rules = ", ".join(sorted({run.selection.rule for run in results}))
    counts = ", ".join(f"{count:,}" for count in sorted({run.episodes.count for run in results}))
    ours = f"Ours: mean over seeds, tested on {counts} episodes per fold, checkpoint selection {rules}"
    if any(line.half_interval is not None for line in filled.lines):
        ours += "; ± half the 95 % t-interval over seeds"
    return [*paper_notes, ours + ("." if filled.toy else "; in brackets the difference from the paper.")]


def fact_columns(table: PaperTable) -> list[str]:
    """Return the columns in which the rows of a table differ.

    Args:
        table: table of the paper.
    """
    names = ["strategy", *table.rows[0].facts]
    texts = {name: {row.label if name == "strategy" else row.facts[name] for row in table.rows} for name in names}
    return [name for name in names if len(texts[name]) > 1] + (["shot"] if len(table.shots) > 1 else [])


def fact(line: Line, name: str) -> str:
    """Return a line's text in a column of :func:`fact_columns`.

    Args:
        line: one row and shot.
        name: column name.
    """
    texts = {"strategy": line.row.label, "shot": str(line.shot), **line.row.facts}
    return texts[name]


def number(score: float | None, difference: float | None = None, half: float | None = None, mark: str = "") -> str:
    """Format a score for a table.

    Args:
        score: in per cent; None gives an empty cell.
        difference: from the paper's score.
        half: half-width of the interval.
        mark: of what sets our runs apart, such as ``[a]``.
    """
    if score is None:
        return ""
    text = f"{score:.2f}" + ("" if half is None else f" ± {half:.2f}") + (f" {mark}" if mark else "")
    return text if difference is None else f"{text} ({difference:+.2f})"


def _ours(line: Line, filled: FilledTable) -> list[str]:
    """Return the cells of our folds, their mean, and the seeds."""
    paper = (None,) * (len(FOLDS) + 1) if filled.toy else (*line.paper.folds, line.paper.mean)
    scores = (*line.folds, line.mean)
    gaps = [None if s is None or p is None else s - p for s, p in zip(scores, paper, strict=True)]
    cells = [
        number(score, gap, mark=filled.mark(line, fold))
        for fold, score, gap in zip(FOLDS, scores[:-1], gaps[:-1], strict=True)
    ]
    folds_run = sum(score is not None for score in line.folds)
    mean = number(line.mean, gaps[-1], line.half_interval, filled.mark(line)) or (
        f"{folds_run} of {len(FOLDS)} folds" if folds_run else NOT_RUN
    )
    return [*cells, mean, " ".join(map(str, line.seeds))]


def terminal(text: Sheet) -> Table:
    """Return the table for rich.

    Args:
        text: from :func:`sheet`.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.title, table.title_justify = text.heading, "left"
    table.caption, table.caption_justify = Text("\n".join(_below(text))), "left"  # brackets are no markup of rich
    for position, name in enumerate(text.header):
        table.add_column(name, justify="left" if position < text.left else "right", no_wrap=position >= text.left)
    for row in text.rows:
        table.add_row(*map(Text, row))
    return table


def markdown(text: Sheet) -> str:
    """Return the table as GitHub Markdown.

    Args:
        text: from :func:`sheet`.
    """
    rule = [":--" if position < text.left else "--:" for position in range(len(text.header))]
    lines = [f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in (text.header, rule, *text.rows)]
    return f"### {text.heading}\n\n" + "\n".join(lines) + "\n\n" + "\n".join(f"- {s}" for s in _below(text)) + "\n"


def latex(text: Sheet) -> str:
    """Return the table as LaTeX, for the package booktabs.

    Args:
        text: from :func:`sheet`.
    """

    def row(cells: Sequence[str]) -> str:
        return " & ".join(_tex(cell) for cell in cells) + r" \\"

    columns = "l" * text.left + "r" * (len(text.header) - text.left)
    parts = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(text.heading)}}}", rf"\begin{{tabular}}{{{columns}}}"]
    parts += [r"\toprule", row(text.header), r"\midrule", *map(row, text.rows), r"\bottomrule", r"\end{tabular}"]
    parts += [rf"\par\footnotesize {_tex(note)}" for note in _below(text)]
    return "\n".join([*parts, r"\end{table}", ""])


def as_csv(filled: Sequence[FilledTable]) -> str:
    """Return all tables as one CSV of plain numbers: one line per row, shot and origin.

    Args:
        filled: tables with our runs.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["table", "row", "method", "backbone", "strategy", "novel_classes", "training", "test_episodes", "shot"]
    writer.writerow(
        [*head, "from", "size", *(f"fold{f}" for f in FOLDS), "mean", "half_interval", "seeds", "deviations"]
    )
    for one in filled:
        for line in one.lines:
            facts = line.row.facts
            words = [one.table.number, line.row.id, facts["method"], facts["backbone"], line.row.label]
            words += [facts["novel classes"], facts["training"], facts["test episodes"].replace(",", ""), line.shot]
            if line.row.origin != "added":
                printed = _plain((*line.paper.folds, line.paper.mean, None))
                writer.writerow([*words, line.row.origin, "full", *printed, "", ""])
            if line.runs:
                scores = _plain((*line.folds, line.mean, line.half_interval))
                size, seeds = "toy" if one.toy else "full", " ".join(map(str, line.seeds))
                writer.writerow([*words, "ours", size, *scores, seeds, _told(line)])
    return out.getvalue()


def _plain(scores: Sequence[float | None]) -> list[str]:
    return ["" if score is None else f"{score:.4f}".rstrip("0").rstrip(".") for score in scores]


def _told(line: Line) -> str:
    """Return what sets a line's runs apart from the table's own protocol, each with its folds."""
    folds = {text: [f for f in FOLDS if text in line.departures(f)] for text in line.departures()}
    return "; ".join(f"{text} (fold {' '.join(map(str, places))})" for text, places in folds.items())


def _below(text: Sheet) -> list[str]:
    marked = [f"* {note}" if note.startswith("t") and note[1:3].isdigit() else note for note in text.notes]
    return [*text.marks, *marked, *(f"WARNING: {warning}" for warning in text.warnings)]


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)
