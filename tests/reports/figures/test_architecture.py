"""Figures 1 and 13 from the structure that the code has, and from files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from typer.testing import CliRunner

from fss.cli.figure import write_structure
from fss.cli.main import app
from fss.reports.figures.architecture import FIGURES
from fss.reports.figures.base import Drawn, Run
from fss.reports.figures.style import ORANGE
from fss.results import ReportError


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_structure(tmp_path_factory.mktemp("structure"))


def draw(name: str, *runs: Run) -> Drawn:
    return {kind.name: kind for kind in FIGURES}[name].draw(runs)


def texts(drawn: Drawn) -> list[str]:
    return [text.get_text() for ax in drawn.figure.axes for text in ax.texts]


def trained(drawn: Drawn) -> list[tuple[float, float]]:
    """Places of the boxes that train; they are hatched, too, for greyscale."""
    boxes = [p for ax in drawn.figure.axes for p in ax.patches if isinstance(p, Rectangle)]
    orange = [p for p in boxes if p.get_facecolor() == to_rgba(ORANGE)]
    assert [p for p in boxes if p.get_hatch()] == orange
    return [p.get_xy() for p in orange]


def test_figure_1_counts_what_the_code_has(described: Run) -> None:
    drawn = draw("1", described)
    rows = list(zip(*drawn.data.values(), strict=True))
    svf = {row[1]: row[2:] for row in rows if row[0] == "svf"}
    assert svf["layer0"] == (1, 0, 9_536, 0)
    assert svf["layer3"] == (19, 19, 7_098_368, 5_120), "six blocks of three, and a shortcut"
    assert sum(row[-1] for row in rows if row[0] == "svf" and row[1] != "head") == 12_544
    assert sum(row[-1] for row in rows if row[0] == "freeze" and row[1] != "head") == 0
    assert sum(row[-2] for row in rows if row[0] == "freeze" and row[1] != "head") == 23_508_032
    said = texts(drawn)
    assert "(a) frozen backbone: 0 of 23,508,032 values of the backbone train" in said
    assert any("layers 2, 3, 4 as factors: 12,544 of 23,508,032" in text for text in said)
    assert "layer 4: S 5,632\n10 convolutions" in said
    assert said.count("4,917,250") == 2, "the head trains in both"
    assert len(trained(drawn)) == 2 + 3 + 1, "two heads, S of three stages, S of the example"


def test_figure_13_tells_which_diagonal_trains(described: Run) -> None:
    drawn = draw("13", described)
    (first, above), (second, below) = sorted(trained(drawn), key=lambda place: -place[1])
    assert above > below
    assert second > first, "the second diagonal stands behind S"
    said = texts(drawn)
    assert said.count("S") == 2
    assert said.count("S'") == 1
    assert sum("12,544 values train" in text for text in said) == 2


def test_what_does_not_train_is_not_drawn_as_if_it_did(described: Run, tmp_path: Path) -> None:
    content = json.loads((described.folder / "structure.json").read_text())
    content["strategies"]["svf_residual"]["example"]["S"]["trains"] = True  # as train_s=true would have it
    (tmp_path / "structure.json").write_text(json.dumps(content))
    assert len(trained(draw("13", Run(tmp_path, None)))) == 3


def test_missing_or_damaged_structure(described: Run, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="fss figure 1 writes and draws it"):
        draw("1", Run(tmp_path, None))
    (tmp_path / "structure.json").write_text('{"strategies": []}')
    with pytest.raises(ReportError, match=r"structure\.json is damaged"):
        draw("13", Run(tmp_path, None))


def test_no_run_is_needed(described: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads((described.folder / "structure.json").read_text())
    monkeypatch.setattr("fss.model.structure.structure", lambda *_: content)  # building it again takes a while
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["figure", "1", "13", "--out", "drawn"])
    assert result.exit_code == 0, result.stderr
    stems = {path.stem for path in Path("drawn").glob("*.pdf")}
    assert stems == {"figure01", "figure13"}
    Path("file").touch()
    result = CliRunner().invoke(app, ["figure", "13", "--out", "file"])
    assert result.exit_code == 2
    assert "Cannot write file" in result.stderr
    assert "--out" in result.stderr
