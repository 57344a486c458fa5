"""The notebooks run from the first cell to the last, below a folder of their own, and are committed without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
FIGURES = {
    "01_svd_of_a_layer": 2,
    "02_an_episode": 3,
    "03_sweep_table_figure": 1,
    "04_bring_your_own_images": 1,
    "05_your_own_method": 0,
}
"""Notebook -> images that it shows."""

SECONDS_PER_CELL = 600
notebook = pytest.mark.parametrize("name", FIGURES)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(book: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_every_notebook_is_known_and_numbered() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(FIGURES)
    assert [name[:3] for name in FIGURES] == ["01_", "02_", "03_", "04_", "05_"]


@notebook
def test_it_is_committed_without_outputs(name: str) -> None:
    book = read(name)
    nbformat.validate(book)
    assert code(book), "a notebook without code"
    for cell in code(book):
        assert not cell.outputs, f"run: nbstripout notebooks/{name}.ipynb"
        assert cell.execution_count is None
    assert book.metadata.kernelspec.name == "python3"


@notebook
def test_it_runs_to_its_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, below = tmp_path / "start", tmp_path / "below"
    for folder in (start, below):
        folder.mkdir()
    settings = {"TMPDIR": below, "IPYTHONDIR": tmp_path / "ipython", "JUPYTER_RUNTIME_DIR": tmp_path / "jupyter"}
    settings |= {
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    for variable, value in settings.items():
        monkeypatch.setenv(variable, str(value))
    book = read(name)
    NotebookClient(
        book, timeout=SECONDS_PER_CELL, kernel_name="python3", resources={"metadata": {"path": str(start)}}
    ).execute()
    outputs = [output for cell in code(book) for output in cell.outputs]
    assert all(cell.execution_count for cell in code(book))
    assert not [output for output in outputs if output.output_type == "error"]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "\nError: " not in text, text  # %run shows how a program ends, but goes on
    assert "SystemExit" not in text, text
    assert "Warning" not in text, text
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == FIGURES[name]
    assert not list(start.iterdir()), "it wrote where it was started"
