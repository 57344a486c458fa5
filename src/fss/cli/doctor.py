"""``fss doctor``: what this machine and these folders can run, and the commands that provide the rest."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fss.cli.friendly import friendly
from fss.commands import program
from fss.config.places import CONF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fss.doctor.check_result import CheckResult

Sections = dict[str, list["CheckResult"]]

_MARKS = {"ok": "✓", "note": "·", "missing": "✗", "problem": "✗"}
_PLAIN_MARKS = {"ok": "+", "note": "-", "missing": "x", "problem": "x"}
_COLOURS = {"ok": "green", "note": "dim", "missing": "yellow", "problem": "red"}

Root = Annotated[Path | None, typer.Option(help="Folder of the data set; default as in conf/data.")]


@friendly
def doctor(
    pascal: Root = None,
    coco: Root = None,
    shapes: Root = None,
    multirun: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("multirun"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help=f"Exit with 1 if {program()} could not start.")] = False,
) -> None:
    """Say what this machine and these folders can run, and which commands provide what is missing."""
    from fss.config.compose import choices

    given = {"pascal": pascal, "coco": coco, "shapes": shapes}
    sections = examine(given | {name: None for name in choices("data") if name not in given}, multirun)
    blockers = [f for found in sections.values() for f in found if f.blocks and f.state != "ok"]
    if as_json:
        typer.echo(_as_json(sections, not blockers))
    else:
        _print(sections, blockers)
    if strict and blockers:
        raise typer.Exit(1)


def examine(roots: dict[str, Path | None], multirun: Path) -> Sections:
    """Look at everything; no failure of one part hides another.

    Args:
        roots: data set -> its folder, or None for the default.
        multirun: folder of the runs.

    Returns:
        Title -> findings, in the order of the report.
    """
    from fss.doctor import files as check_files
    from fss.doctor import machine as check_machine
    from fss.doctor import runs as check_runs
    from fss.doctor.check_result import guarded

    runs = check_runs.scan(multirun)
    data: list[CheckResult] = []
    for name, given in roots.items():
        data += guarded(name, partial(_data_set, name, given))
    return {
        "Versions": guarded("versions", check_machine.versions),
        "Hardware": [
            *guarded("hardware", partial(check_machine.hardware, multirun)),
            *guarded("GPU", check_machine.gpus),
        ],
        "Data sets": data,
        "Weights": guarded("weights", check_files.weights),
        "Base learners": guarded("base learners", partial(check_runs.base_learners, runs, CONF)),
        "Runs": guarded("runs", partial(check_runs.runs_of, multirun, runs)),
        "W&B": guarded("W&B", partial(check_machine.wandb, runs.offline)),
        "SLURM": guarded("SLURM", check_machine.slurm),
    }


def _data_set(name: str, given: Path | None) -> Iterator[CheckResult]:
    from fss.doctor.files import INSPECTED, data_set, default_root, read_by_its_source

    if name not in INSPECTED:
        return read_by_its_source(name)
    return data_set(name, default_root(CONF, name) if given is None else given)


def _as_json(sections: Sections, can_start: bool) -> str:
    from dataclasses import asdict

    content = {title: [asdict(f) for f in found] for title, found in sections.items()}
    return json.dumps({"can_start": can_start, "sections": content}, indent=2, default=str)


def _print(sections: Sections, blockers: list[CheckResult]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    marks = _MARKS if console.encoding.lower().startswith("utf") else _PLAIN_MARKS
    for title, found in sections.items():
        console.print(Text(title, style="bold"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for finding in found:
            state = Text(f"  {marks[finding.state]} {finding.state}", style=_COLOURS[finding.state])
            table.add_row(state, Text(finding.name), Text(finding.text))
        console.print(table)
        for command in dict.fromkeys(f.command for f in found if f.command):
            console.print(Text(f"    $ {command}"), soft_wrap=True)  # one line each, to be copied
    if blockers:
        names = ", ".join(f.name for f in blockers)
        console.print(Text(f"{program()} cannot start: {names}", style="bold"), soft_wrap=True)
    else:
        console.print(Text(f"{program()} can start.", style="bold"))
