"""``fss figure``: lines, exit codes, and errors that say what to type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from tests.reports.figures import recordings
from tests.reports.figures.recordings import FREEZE, SVF, full
from typer.testing import CliRunner

from fss.cli.main import app
from fss.config.checks import check
from fss.config.compose import CONF, plain, prepare_hydra
from fss.reports.figures.base import kinds
from fss.reports.figures.curves import PANELS

NUMBERED = sorted(path.stem for path in (CONF / "experiment").glob("figure*.yaml"))


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["figure", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the runs of Figure 2 and one with singular values."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "multirun" / "figures"
    for i, tuned in enumerate((FREEZE, full(0, 1, 2, 3, 4), SVF)):
        recordings.curves(recordings.record(folder / f"pfenet{i}", tuned, method="pfenet"))
    recordings.spectra(recordings.record(folder / "baseline", SVF), shrink=4)
    return folder


def test_list() -> None:
    code, out, _ = run("--list")
    assert code == 0
    for kind in kinds().values():
        assert f"{kind.name}  {kind.title}\n" in out
        assert f"needs {kind.needs}\n" in out


def test_numbers_of_the_default_folder(runs: Path) -> None:
    code, out, err = run("2", "figure02", "heatmap")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "        2  multirun/reports/figures/figure02.pdf (.png, .csv, .txt)",
        "  heatmap  multirun/reports/figures/heatmap.pdf (.png, .csv, .txt)",
    ]
    made = {path.name for path in Path("multirun/reports/figures").iterdir()}
    assert made == {f"{name}.{e}" for name in ("figure02", "heatmap") for e in ("pdf", "png", "csv", "txt")}


def test_all_draws_what_there_is_and_lists_the_rest(runs: Path) -> None:
    code, out, err = run("all", "--out", "drawn")
    assert code == 0, err
    drawn = {path.stem for path in Path("drawn").glob("*.pdf")}
    assert drawn >= {"figure02", "figure06", "figure08", "figure09", "figure10", "figure11", "figure12", "heatmap"}
    assert not drawn & {"figure03", "figure04", "figure07"}
    for name, command in (("3", "experiment=figure03"), ("7", "experiment=figure07"), ("4", "experiment=figure06")):
        (line,) = [line for line in err.splitlines() if line.split()[0] == name]
        assert "not drawn: " in line
        assert command in line
    assert len(out.splitlines()) >= 8


def test_nothing_at_all_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    needing = {name: kind for name, kind in kinds().items() if kind.experiment}  # schematic ones need nothing
    monkeypatch.setattr("fss.reports.figures.base.kinds", lambda: needing)
    code, out, err = run("all", "--runs", "empty", "--out", "drawn")
    assert (code, out) == (2, "")
    assert f"{len(needing)} of {len(needing)} figures could not be drawn" in err
    code, out, err = run("3", "--out", "drawn")
    assert (code, out) == (2, "")
    assert "no run found. Make one with: python train.py -m experiment=figure03 (looked below multirun/figures)" in err
    assert not list(tmp_path.rglob("*.pdf"))


def test_one_that_cannot_be_drawn_does_not_hide_the_others(runs: Path) -> None:
    code, out, err = run("3", "2", "--out", "drawn")
    assert code == 2
    assert "figure02.pdf" in out
    assert "1 of 2 figures could not be drawn" in err


def test_a_chart_without_a_run_is_told(runs: Path) -> None:
    (runs / "pfenet1" / "recording" / "curves.csv").unlink()
    code, out, _ = run("2", "--runs", str(runs), "--out", "drawn")
    assert code == 0
    assert "without fully fine-tuned: python train.py -m experiment=figure02 +row=full" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Name one or more figures, or all: "),
        (["14"], "There is no figure 14."),
        (["heatmp"], "Do you mean heatmap?"),
        (["2", "--runs", "nowhere"], "--runs nowhere is no folder"),
        (["2", "--list", "--rums", "x"], "No such option"),
    ],
)
def test_mistakes(runs: Path, arguments: list[str], text: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert text in err
    assert not list(Path().rglob("*.pdf"))


def test_an_output_folder_that_cannot_be_written(runs: Path) -> None:
    Path("drawn").write_text("a file")
    code, _, err = run("2", "--out", "drawn")
    assert code == 2
    assert "Cannot write drawn/figure02.pdf" in err
    assert "--out" in err


def composed(*overrides: str) -> dict[str, Any]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        return plain(compose("config", overrides=list(overrides)))


@pytest.mark.parametrize("name", NUMBERED)
def test_experiments_record_into_the_folder_that_is_searched(name: str) -> None:
    config = composed(f"experiment={name}")
    check(config)
    assert config["recording"]["enabled"] is True
    assert (config["group"], config["fold"], config["shot"]) == ("figures", 0, 1)
    assert composed(f"experiment={name}", "+size=smoke")["recording"]["enabled"] is True


def test_every_figure_with_data_has_an_experiment() -> None:
    assert [f"figure{i:02d}" for i in range(2, 13)] == NUMBERED


@pytest.mark.parametrize("name", PANELS)
def test_rows_make_the_runs_of_their_charts(name: str) -> None:
    """What a row of the experiment trains is what the chart of that row looks for."""
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        experiment = f"experiment=figure{int(name):02d}"
        rows = compose("config", overrides=[experiment], return_hydra_config=True).hydra.sweeper.rows
        assert list(rows) == [panel.row for panel in PANELS[name]]
        for panel in PANELS[name]:
            config = plain(compose("config", overrides=[experiment, *str(rows[panel.row]).split()]))
            fitting = [p.title for p in PANELS[name] if any(_fits(config["finetune"], w) for w in p.tuned)]
            assert fitting == [panel.title]
            assert config["method"]["name"] == ("pfenet" if name == "2" else "baseline")


def _fits(tuned: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(tuned.get(key) == value for key, value in wanted.items())
