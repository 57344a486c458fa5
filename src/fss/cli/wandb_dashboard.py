"""``fss wandb dashboard``: the paper's tables as a saved workspace and a report at W&B."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fss.cli.friendly import friendly
from fss.errors import FssError, first_line
from fss.files import write_json
from fss.tracking.wandb_mode import has_key, wandb_mode

if TYPE_CHECKING:
    from fss.reports.paper_tables import PaperTable

app = typer.Typer(help="W&B dashboards of the paper's tables.", no_args_is_help=True)

OUT = Path("multirun/reports/wandb-dashboard.json")


@app.callback()
def _group() -> None:
    """Keep ``dashboard`` a sub-command: Typer drops the name of an only command."""


@app.command()
@friendly
def dashboard(
    entity: Annotated[str, typer.Option(help="W&B user or team, as in wandb.ai/ENTITY/PROJECT.")],
    project: Annotated[str, typer.Option(help="W&B project of the runs (logger.project).")] = "fss",
    tables: Annotated[str, typer.Option(help="Table numbers, e.g. 5-10 or 1,5,8.")] = "5-10",
    size: Annotated[str, typer.Option(help="full, or smoke for toy-size runs.")] = "full",
    out: Annotated[Path, typer.Option(help="Output file of the specification.")] = OUT,
    spec: Annotated[Path | None, typer.Option(help="Upload this specification instead of generating one.")] = None,
) -> None:
    """Create a saved workspace and a report at W&B, with one section per table, averaged over folds.

    Without a key, or offline, only the specification file is written and nothing is uploaded.
    """
    from fss.tracking.dashboard import SIZES, specification

    if not entity.strip() or not project.strip():
        raise FssError(f"--entity {entity!r} --project {project!r}: give both, as in wandb.ai/ENTITY/PROJECT.")
    if size not in SIZES:
        raise FssError(f"--size {size} is not known: give one of {', '.join(SIZES)}.")
    if spec is None:
        content, source = specification(_tables(tables), entity, project, size), str(out)
    else:
        content, source = _moved(_read(spec), entity, project), str(spec)
    from fss.tracking.workspace import dashboard as build

    workspace, report = build(content, source)  # validates it before anything is written or sent
    if spec is None:
        write_json(out, content)
        typer.echo(f"Specification: {out}")
    words = ["fss", "wandb", "dashboard", "--entity", entity, "--project", project, "--spec", source]
    command = shlex.join(words)
    if wandb_mode("auto") != "online":
        why = "WANDB_MODE says offline" if has_key() else "no W&B key is set"
        typer.echo(f"Nothing was uploaded: {why}. To upload it, here or where the file is copied to:")
        typer.echo(f"  wandb login\n  {command}")
        return
    _save(workspace, report, command)


def _tables(text: str) -> list[PaperTable]:
    """Return the tables that a text such as ``5-10`` names."""
    from fss.reports.paper_tables import tables

    known = {table.number: table for table in tables().values()}
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise FssError(f"--tables {text} is not understood: give numbers, as 5-10 or 1,5,8.")
        numbers += range(int(first), int(last or first) + 1)
    wrong = sorted(set(numbers) - known.keys())
    if wrong or not numbers:
        raise FssError(
            f"--tables {text}: the paper has no Table {', '.join(map(str, wrong)) or 'of this kind'}; give numbers "
            f"from {min(known)} to {max(known)}, as 5-10 or 1,5,8."
        )
    return [known[number] for number in dict.fromkeys(numbers)]


def _read(path: Path) -> dict[str, Any]:
    """Read a specification."""
    how = "write one with fss wandb dashboard --entity ENTITY --project PROJECT --out FILE"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FssError(f"--spec {path} cannot be read: {error.strerror}; {how}") from error
    except ValueError as error:
        raise FssError(f"--spec {path} is damaged or no JSON ({error}); {how}") from error
    if not isinstance(content, dict):
        raise FssError(f"--spec {path} is no specification of a dashboard; {how}")
    return content


def _moved(content: dict[str, Any], entity: str, project: str) -> dict[str, Any]:
    """Return a specification for another entity and project."""
    destination = {"entity": entity, "project": project}

    def moved(node: Any) -> Any:
        if isinstance(node, list):
            return [moved(item) for item in node]
        if not isinstance(node, dict):
            return node
        own = {key: moved(value) for key, value in node.items()}
        return own | destination if destination.keys() <= own.keys() else own

    result: dict[str, Any] = moved(content)
    return result


def _save(workspace: Any, report: Any, command: str) -> None:
    """Save workspace and report at W&B."""
    done: list[str] = []
    try:
        for name, made in (("Workspace", workspace), ("Report", report)):
            made.save()
            done.append(f"{name}: {made.url}")
    except Exception as error:  # no network, invalid key, somebody else's project
        saved = f" Saved before: {'; '.join(done)}." if done else ""
        reason = first_line(error).rstrip(".")
        raise FssError(
            f"W&B did not take the dashboard: {reason}.{saved} Check the key (wandb login), entity and project, then: "
            f"{command}"
        ) from error
    for line in done:
        typer.echo(line)
    typer.echo("Every upload makes a workspace and a report of its own; delete the older ones at W&B.")
