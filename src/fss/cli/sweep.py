"""``fss sweep status`` and ``fss sweep plan``: the runs of a sweep, done and left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fss.cli.friendly import friendly
from fss.commands import program, typed

if TYPE_CHECKING:
    from fss.sweeps.estimates import Measured
    from fss.sweeps.grid import Planned
    from fss.sweeps.progress import Progress

app = typer.Typer(help="Show what is done of a sweep, what is left, and how long it takes.", no_args_is_help=True)

Options = Annotated[
    list[str], typer.Argument(help=f"Options of the sweep, as after {program()} -m.", metavar="OPTION...")
]
ROOT = Path("multirun")
_COLOURS = {"done": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "missing": "dim"}


@app.command()
@friendly
def status(options: Options) -> None:
    """Show the state of every run of a sweep (done, running, failed, interrupted, missing) and the time left."""
    from fss.sweeps.estimates import measured
    from fss.sweeps.grid import planned
    from fss.sweeps.progress import STATES, progress

    runs = planned(options)
    states = [progress(run.folder, run.config) for run in runs]
    _show(runs, states)
    counts = Counter(s.state for s in states)
    typer.echo(f"{len(runs)} runs: " + ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s]))
    left = [r for r, s in zip(runs, states, strict=True) if s.state != "done"]
    if left:
        typer.echo(f"Left, one after another: {_total(left, measured(ROOT), options)}")


@app.command()
@friendly
def plan(options: Options) -> None:
    """Count the runs of a sweep and estimate the hours they take from finished runs."""
    from fss.sweeps.estimates import measured, seconds
    from fss.sweeps.grid import planned
    from fss.sweeps.progress import result_of

    runs = planned(options)
    left = [r for r in runs if result_of(r.folder, r.config) is None]
    for sentence in dict.fromkeys(sentence for run in runs for sentence in run.warnings):
        typer.echo(f"Warning: {sentence}", err=True)
    typer.echo(f"{len(runs)} runs, {len(runs) - len(left)} of them finished.")
    known = measured(ROOT)
    rows: dict[str, list[float | None]] = {}
    for run in left:
        rows.setdefault(f"{_label(run, runs)}, {run.config['shot']} shot", []).append(seconds(run.config, known))
    for name, times in rows.items():
        typer.echo(f"  {len(times):4d} x {name}: {_row_time(times)}")
    if left:
        typer.echo(f"All that is left, on one device: {_total(left, known, options)}")


def _show(runs: Sequence[Planned], states: Sequence[Progress]) -> None:
    """Print a grid: one line per row of the sweep, one column per shot and fold."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = {(_label(run, runs), _shot_and_fold(run)): state for run, state in zip(runs, states, strict=True)}
    columns = sorted({column for _, column in cells})
    table = Table(box=None)
    table.add_column("")
    for shot, fold in columns:
        table.add_column(f"{shot}shot\nfold {fold}", justify="right")
    for label in dict.fromkeys(label for label, _ in cells):
        found = [cells.get((label, column)) for column in columns]
        table.add_row(label, *(Text("") if s is None else Text(_mark(s), style=_COLOURS[s.state]) for s in found))
    console = Console()
    console.print(table)
    for run, state in zip(runs, states, strict=True):
        if state.state in ("failed", "running"):
            console.print(Text(f"{state.state}: {run.folder}", style=_COLOURS[state.state]), soft_wrap=True)
            console.print(Text(f"  {state.text}"), no_wrap=True, overflow="ellipsis")


def _mark(progress: Progress) -> str:
    return progress.state if progress.miou is None else f"{progress.miou:.2f}"


def _shot_and_fold(run: Planned) -> tuple[int, int]:
    return int(run.config["shot"]), int(run.config["fold"])


def _label(run: Planned, runs: Sequence[Planned]) -> str:
    """Name a row by the options that not all runs share."""
    common = set.intersection(*(set(r.words) for r in runs))
    words = [w for w in run.words if w not in common and not w.startswith(("fold=", "shot="))]
    return " ".join(words) or "all"


def _row_time(times: Sequence[float | None]) -> str:
    estimated = [t for t in times if t is not None]
    if not estimated:
        return "no run of this kind was measured"
    return _duration(sum(estimated) * len(times) / len(estimated))


def _total(left: Sequence[Planned], known: Sequence[Measured], options: Sequence[str]) -> str:
    from fss.sweeps.estimates import seconds

    times = [seconds(run.config, known) for run in left]
    unknown = times.count(None)
    text = "unknown" if unknown == len(left) else f"about {_duration(sum(t for t in times if t is not None))}"
    if unknown:
        short = ["fold=0", "data.epochs=1", "trainer.limit_train_batches=20", "data.test_episodes=20", "group=measured"]
        words = [o for o in options if not o.startswith(("fold=", "group="))]
        text += (
            f"; {unknown} of {len(left)} runs are of kinds that were never measured. Short runs measure them: "
            f"{typed('-m', *words, *short)}"
        )
    return text


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"
