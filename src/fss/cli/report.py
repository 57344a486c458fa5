"""``fss report``: the paper's tables beside our runs, or table and preview grid of a folder of runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fss.cli.friendly import friendly
from fss.commands import option, typed
from fss.errors import FssError

if TYPE_CHECKING:
    from fss.reports.paper_tables import PaperTable
    from fss.reports.table_runs import FilledTable
    from fss.results import Result

SIZES = ("auto", "full", "smoke")


@friendly
def report(
    target: Annotated[str, typer.Argument(help="table01 to table24, all, or a folder of runs, e.g. multirun/demo.")],
    runs: Annotated[Path, typer.Option(help="For tables: folder searched recursively for runs.")] = Path("multirun"),
    out: Annotated[
        Path | None,
        typer.Option(help="For tables: folder of the Markdown, LaTeX, CSV and HTML files; default RUNS/reports."),
    ] = None,
    size: Annotated[
        str, typer.Option(help="For tables: full, smoke (toy runs), or auto: toy runs only if there are no others.")
    ] = "auto",
    episodes: Annotated[int, typer.Option(help="For a folder: rows of the preview grid; 0 draws none.", min=0)] = 6,
) -> None:
    """Print tables of the paper beside your runs, or tabulate the runs of one folder.

    Tables are also written as Markdown, LaTeX, CSV and one HTML page, a folder as Markdown and a preview grid.
    """
    if target == "all" or re.fullmatch(r"table\d+", target):
        _tables(target, runs, out or runs / "reports", size)
    else:
        _folder(Path(target), episodes)


def _tables(target: str, runs: Path, out: Path, size: str) -> None:
    """Print tables of the paper with our runs, and write them in every format."""
    from rich.console import Console

    from fss.files import atomic
    from fss.reports.comparison_table import as_csv, latex, markdown, sheet, terminal
    from fss.reports.html_page import html_page
    from fss.reports.paper_tables import table, tables
    from fss.results import find_results

    if size not in SIZES:
        raise FssError(f"--size {size} is not known: give one of {', '.join(SIZES)}.")
    wanted = list(tables().values()) if target == "all" else [table(target)]
    results = find_results(runs) if runs.is_dir() else []
    filled = [_filled(one, results, size) for one in wanted]
    sheets = [sheet(one) for one in filled]
    console = Console()
    for text in sheets:
        console.print(terminal(text))
        console.print()
    title = "The paper's tables" if target == "all" else f"Table {wanted[0].number}"
    contents = {
        "md": "\n".join(markdown(text) for text in sheets),
        "tex": "\n".join(latex(text) for text in sheets),
        "csv": as_csv(filled),
        "html": html_page(filled, title),
    }
    for ending, content in contents.items():
        with atomic(out / f"{target}.{ending}") as file:
            file.write(content.encode())
    console.print(f"Written: {', '.join(str(out / f'{target}.{ending}') for ending in contents)}", soft_wrap=True)
    if not any(line.runs for one in filled for line in one.lines):
        words = ["-m", f"experiment={wanted[0].name}", *(["+size=smoke"] if size == "smoke" else [])]
        console.print(f"There is no run of it below {runs} yet: {typed(*words)}", soft_wrap=True)


def _filled(table: PaperTable, results: Sequence[Result], size: str) -> FilledTable:
    """Fill a table with runs of the wanted size."""
    from fss.config.protocol import deviations
    from fss.reports.table_runs import fill_table

    full = fill_table(table, results, toy=False, deviations=deviations)
    if size == "full" or (size == "auto" and (full.warnings or any(line.runs for line in full.lines))):
        return full
    toy = fill_table(table, results, toy=True, deviations=deviations)
    return toy if size == "smoke" or any(line.runs for line in toy.lines) else full


def _folder(folder: Path, episodes: int) -> None:
    """Print a folder's tables and write them as Markdown, and write a preview grid with one column per strategy."""
    from rich.console import Console

    from fss.files import atomic
    from fss.reports.comparison_table import markdown, terminal
    from fss.reports.head_table import compares_heads, head_table
    from fss.reports.preview_grid import preview_grid
    from fss.reports.strategy_table import strategy_table, to_markdown
    from fss.results import ReportError, find_results

    results = find_results(folder)
    if not results:
        begun = ", ".join(str(path) for path in sorted(folder.rglob("result.json"))[:3])
        raise ReportError(
            f"There is no finished run below {folder}{f' (unfinished: {begun})' if begun else ''}. Runs appear there "
            f"after {typed(option('group', folder.name))}; the same command continues an interrupted one."
        )
    results = sorted(results, key=lambda r: (r.parameters.backbone_trainable, r.key.seed))
    console = Console()
    console.print(strategy_table(results))
    with atomic(folder / "table.md") as file:
        file.write(to_markdown(results).encode())
    console.print(f"Table: {folder / 'table.md'}")
    if compares_heads(results):
        heads = head_table(results)
        console.print(terminal(heads))
        with atomic(folder / "heads.md") as file:
            file.write(markdown(heads).encode())
        console.print(f"Heads by strategy: {folder / 'heads.md'}")
    run_folders: dict[str, Path] = {}
    for result in results:
        if (result.path.parent / "previews.npz").is_file():
            run_folders.setdefault(result.key.finetune, result.path.parent)
    if run_folders and episodes:
        preview_grid(run_folders, folder / "previews.png", episodes)
        console.print(f"Images (support | query | truth | {' | '.join(run_folders)}): {folder / 'previews.png'}")
