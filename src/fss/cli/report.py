"""``fss report``: the table and the pictures of a folder of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fss.cli.edge import friendly


@friendly
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of runs, e.g. multirun/demo.")],
    episodes: Annotated[int, typer.Option(help="Rows of the picture grid; 0 draws none.", min=0)] = 6,
) -> None:
    """Print the table of a folder's runs; write it as Markdown, and a picture grid with one column per strategy."""
    from rich.console import Console

    from fss.files import atomic
    from fss.reports.pictures import picture_grid
    from fss.reports.results import ReportError, find_results
    from fss.reports.tables import strategy_table, to_markdown

    results = find_results(folder)
    if not results:
        begun = ", ".join(str(path) for path in sorted(folder.rglob("result.json"))[:3])
        raise ReportError(
            f"There is no finished run below {folder}{f' (unfinished: {begun})' if begun else ''}. Runs appear there "
            f"after python train.py group={folder.name}; the same command continues an interrupted one."
        )
    results = sorted(results, key=lambda r: (r.parameters.backbone_trainable, r.key.seed))
    console = Console()
    console.print(strategy_table(results))
    with atomic(folder / "table.md") as file:
        file.write(to_markdown(results).encode())
    console.print(f"Table: {folder / 'table.md'}")
    runs: dict[str, Path] = {}
    for result in results:
        if (result.path.parent / "pictures.npz").is_file():
            runs.setdefault(result.key.finetune, result.path.parent)
    if runs and episodes:
        picture_grid(runs, folder / "pictures.png", episodes)
        console.print(f"Pictures (support | query | truth | {' | '.join(runs)}): {folder / 'pictures.png'}")
