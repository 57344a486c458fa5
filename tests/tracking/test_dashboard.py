"""The specification of a dashboard, built from the installed wandb-workspaces, and what would be uploaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fss.cli.main import app
from fss.reports.paper_tables import table, tables
from fss.reports.table_rows import label
from fss.tracking.dashboard import printed, specification
from fss.tracking.workspace import CLASSES, dashboard

SIX = [table(f"table{number:02d}") for number in range(5, 11)]


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)


class Server:
    """Stands in for W&B: notes what is asked of it and answers as it would."""

    def __init__(self) -> None:
        self.views: list[dict[str, Any]] = []
        self.made: list[tuple[str, str]] = []

    def __call__(self, api: Any, query: Any, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        given = dict(variables or {})
        if "spec" not in given:
            return {"project": {"internalId": "1"}}
        self.views.append(given)
        view = {"id": "dmlldw==", "name": given["name"], "displayName": given["displayName"], "type": given["type"]}
        view |= {"description": "", "spec": given["spec"], "user": None, "createdAt": None, "updatedAt": None}
        view |= {"project": {"id": "1", "name": given["projectName"], "entityName": given["entityName"]}}
        return {"upsertView": {"view": view, "inserted": True}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    import wandb_workspaces.reports.v2.interface as reports
    import wandb_workspaces.workspaces.interface as workspaces
    import wandb_workspaces.workspaces.internal as internal

    answers = Server()

    class Project:
        name = "fss"

    class Api:
        def projects(self, entity: str) -> list[Project]:
            return [Project()]

        def create_project(self, project: str, entity: str) -> None:
            answers.made.append((entity, project))

    monkeypatch.setattr(reports, "_get_api", Api)
    monkeypatch.setattr(reports, "execute_graphql", answers)
    monkeypatch.setattr(internal, "execute_graphql", answers)
    monkeypatch.setattr(internal.wandb, "Api", Api)
    for module in (reports, workspaces):
        monkeypatch.setattr(module, "get_app_url", lambda api: "https://wandb.test")
    return answers


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["wandb", "dashboard", *arguments])
    return done.exit_code, done.output


def test_without_a_key_a_file_is_written_and_nothing_uploaded(tmp_path: Path, server: Server) -> None:
    code, text = run("--entity", "team", "--out", "board.json")
    assert code == 0, text
    assert "no W&B key is set" in text
    assert "wandb login" in text
    assert "fss wandb dashboard --entity team --project fss --spec board.json" in text
    assert server.views == []
    content = json.loads((tmp_path / "board.json").read_text())
    assert content == specification(SIX, "team", "fss", "full")
    dashboard(content, "board.json")


@pytest.mark.parametrize("size", ["full", "smoke"])
def test_every_table_of_the_paper_is_accepted(size: str) -> None:
    workspace, report = dashboard(specification(list(tables().values()), "team", "fss", size), "it")
    assert isinstance(workspace, CLASSES["Workspace"])
    assert isinstance(report, CLASSES["Report"])
    assert sum(section.name.startswith("Table ") for section in workspace.sections) == 24
    assert sum(isinstance(block, CLASSES["PanelGrid"]) for block in report.blocks) == 24


def test_bars_are_rows_and_folds_are_averaged() -> None:
    workspace, report = dashboard(specification(SIX, "team", "fss", "full"), "it")
    grids = [block for block in report.blocks if isinstance(block, CLASSES["PanelGrid"])]
    assert len(grids) == 6
    for one, section, grid in zip(SIX, workspace.sections, grids, strict=False):
        for panel in (section.panels[0], grid.panels[0]):
            assert isinstance(panel, CLASSES["BarPlot"])
            assert (panel.metrics, panel.groupby_aggfunc) == ([f"tables/{one.name}"], "mean")
            assert panel.groupby == CLASSES["Config"](f"tables.{one.name}")
        (runs,) = grid.runsets
        assert (runs.entity, runs.project, runs.groupby) == ("team", "fss", [f"config.tables.{one.name}"])
        assert f"Tags in ['{one.name}']" in runs.filters
        assert "Tags not in ['toy']" in runs.filters


def test_the_papers_numbers_stand_beside_the_runs_under_the_same_names() -> None:
    for one in SIX:
        text = printed(one)
        for row in one.rows:
            assert f"| {label(one, row, 1)} | {row.numbers[1].mean:.2f} |" in text


def test_with_a_key_workspace_and_report_are_saved(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    code, text = run("--entity", "team", "--project", "fss", "--tables", "5,8", "--size", "smoke")
    assert code == 0, text
    workspace, report = server.views
    assert {v["entityName"] for v in server.views} == {"team"}
    assert (workspace["type"], report["type"]) == ("project-view", "runs")
    sent = json.dumps([workspace["spec"], report["spec"]])
    assert "tables/table05" in sent
    assert "tables.value.table08" in sent, "as W&B keeps nested configurations"
    assert "table06" not in sent
    assert "https://wandb.test/team/fss" in text


def test_a_specification_is_uploaded_elsewhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--entity", "mine", "--out", "board.json")[0] == 0
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    code, text = run("--entity", "yours", "--project", "other", "--spec", "board.json")
    assert code == 0, text
    assert {(v["entityName"], v["projectName"]) for v in server.views} == {("yours", "other")}
    assert "mine" not in json.dumps(server.views)
    assert server.made == [("yours", "other")], "a project that is not there yet"


def test_a_refusal_names_the_command_to_repeat(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb_workspaces.workspaces.internal as internal

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("permission denied")

    monkeypatch.setattr(internal, "execute_graphql", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    code, text = run("--entity", "team", "--out", "board.json")
    assert code == 2
    assert "permission denied" in text
    assert "fss wandb dashboard --entity team --project fss --spec board.json" in text
    assert Path("board.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--entity", " "), "--entity"),
        (("--entity", "e", "--size", "big"), "full, smoke"),
        (("--entity", "e", "--tables", "5-x"), "5-10 or 1,5,8"),
        (("--entity", "e", "--tables", "25"), "from 1 to 24"),
        (("--entity", "e", "--tables", "9-5"), "5-10 or 1,5,8"),
        (("--entity", "e", "--spec", "none.json"), "No such file"),
        (("--entity", "e", "--spec", "broken.json"), "damaged"),
        (("--entity", "e", "--spec", "list.json"), "no specification"),
        (("--entity", "e", "--spec", "old.json"), "of format 1"),
        (("--entity", "e", "--spec", "strange.json"), "BarPlott"),
        (("--entity", "e", "--spec", "wrong.json"), "groupby_aggfunc"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[str, ...], told: str) -> None:
    good = specification(SIX[:1], "e", "fss", "full")
    Path("broken.json").write_text('{"format": 1')
    Path("list.json").write_text("[]")
    Path("old.json").write_text(json.dumps({**good, "format": 0}))
    Path("strange.json").write_text(json.dumps(good).replace("BarPlot", "BarPlott"))
    Path("wrong.json").write_text(json.dumps(good).replace('"groupby_aggfunc": "mean"', '"groupby_aggfunc": "avg"'))
    code, text = run(*arguments)
    assert code == 2, text
    assert told in text
    assert "Traceback" not in text
    assert not Path("multirun").exists(), "nothing is written"
