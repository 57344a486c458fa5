"""``fss figure``: the paper's figures and further ones, drawn from recorded runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fss.cli.friendly import friendly
from fss.config.places import CONF
from fss.errors import FssError

if TYPE_CHECKING:
    from fss.reports.figures.base import FigureKind, Run

RUNS = Path("multirun")
SHOWN = ("backbone=resnet50", "method=baseline")
"""Options of the schematic figures: the paper's ablation setting."""
STRATEGIES = ("freeze", "svf", "svf_residual")
EXAMPLE = "layer3.5.conv2"
"""Convolution whose factors are drawn with their shapes."""


@friendly
def figure(
    names: Annotated[list[str] | None, typer.Argument(help="Figure numbers or names (see --list), or all.")] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Folder searched recursively for runs; repeatable. Default: the figure's own group."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder of PDF, PNG, CSV and caption.")] = RUNS
    / "reports"
    / "figures",
    listed: Annotated[bool, typer.Option("--list", help="List every figure and what it needs.")] = False,
) -> None:
    """Draw figures of the paper, and further ones, as PDF, PNG, CSV and caption."""
    from fss.reports.figures.base import kinds

    known = kinds()
    if listed:
        for kind in known.values():
            typer.echo(f"{kind.name:>9}  {kind.title}\n{'':11}needs {kind.needs}")
        return
    if not names:
        raise FssError(f"Name one or more figures, or all: {', '.join(known)}. What each needs: fss figure --list")
    for folder in runs or ():
        if not folder.is_dir():
            raise FssError(f"--runs {folder} is no folder. Give one that holds runs, as --runs {RUNS}/figures.")
    wanted = list(known.values()) if "all" in names else list(dict.fromkeys(_named(name, known) for name in names))
    left_out = _draw(wanted, runs, out)
    for name, reason in left_out.items():
        typer.echo(f"{name:>9}  not drawn: {reason}", err=True)
    if left_out and (len(left_out) == len(wanted) or "all" not in names):
        raise FssError(f"{len(left_out)} of {len(wanted)} figures could not be drawn, see above.")


def _draw(wanted: Sequence[FigureKind], runs: Sequence[Path] | None, out: Path) -> dict[str, str]:
    """Draw and write figures, printing one line each; return figure -> why it could not be drawn."""
    from fss.reports.figures.base import find_runs
    from fss.reports.figures.style import save
    from fss.results import ReportError

    groups = {} if runs else _groups()
    found: dict[tuple[Path, ...], list[Run]] = {}
    left_out = {}
    for kind in wanted:
        folders = tuple(runs) if runs else tuple(RUNS / groups[e] for e in [kind.experiment] if e)
        if kind.schematic:
            folders = ()
        if folders not in found:
            found[folders] = [write_structure(out)] if kind.schematic else find_runs(folders)
        try:
            drawn = kind.draw(found[folders])
        except ReportError as error:
            left_out[kind.name] = _with_folders(str(error), folders)
            continue
        paths = save(drawn, out, stem(kind.name))
        endings = ", ".join(path.suffix for path in paths[1:])
        typer.echo(f"{kind.name:>9}  {paths[0]} ({endings})")
        for text in drawn.missing:
            typer.echo(f"{'':11}without {text}")
    return left_out


def stem(name: str) -> str:
    """Return a figure's file name without extension: ``figure02`` for 2, the name itself for named figures.

    Args:
        name: name of the figure.
    """
    return f"figure{int(name):02d}" if name.isdecimal() else name


def _named(name: str, known: Mapping[str, FigureKind]) -> FigureKind:
    """Find a figure by its typed name: 2, 02, figure2 and figure02 are equivalent."""
    number = re.fullmatch(r"(?:fig(?:ure)?)?0*(\d+)", name.lower())
    key = number[1] if number else name.lower()
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, 1)
    advice = f" Do you mean {near[0]}?" if near else ""
    raise FssError(
        f"There is no figure {name}.{advice} Known: {', '.join(known)}, all. Each in a line: fss figure --list"
    )


def _with_folders(reason: str, folders: Sequence[Path]) -> str:
    return f"{reason} (looked below {', '.join(map(str, folders))})" if folders else reason


def _groups() -> dict[str, str]:
    """Return experiment -> folder of its runs below ``multirun``, as set in ``conf/``."""
    from fss.config.conf_files import inherit, read_config

    if not (CONF / "experiment").is_dir():
        raise FssError(f"There is no {CONF / 'experiment'}, which says where runs lie. Name their folder with --runs.")
    files = inherit([read_config(path, "experiment") for path in sorted((CONF / "experiment").glob("*.yaml"))])
    return {file.name: file.options["group"].default for file in files if "group" in file.options}


def write_structure(folder: Path) -> Run:
    """Write the model structure that schematic figures are drawn from: shapes only, no weights.

    Args:
        folder: folder that receives the file.

    Returns:
        The folder as a :class:`Run`, for the figures.

    Raises:
        FssError: if the file cannot be written.
    """
    from fss.config.compose import composed
    from fss.files import write_json
    from fss.model.structure import structure
    from fss.reports.figures.base import STRUCTURE, Run

    path = folder / STRUCTURE
    content = structure({name: composed([f"finetune={name}", *SHOWN]) for name in STRATEGIES}, EXAMPLE)
    try:
        write_json(path, content)
    except OSError as error:
        raise FssError(
            f"Cannot write {path}: {error.strerror or error}. Make room there or name another folder with --out, then "
            "type the same command again."
        ) from error
    return Run(folder, None)
