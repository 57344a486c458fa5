"""Every way in which a user or a file can be wrong is answered by one paragraph, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.bad_data import ARCHIVES
from tests.cli.bad_inputs import CKPT, PLACES, SMALL, Case, Outcome, problems, run, snapshot, write_stock
from tests.cli.bad_table import CASES
from tests.programs import call


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    write_stock(folder)
    return folder


def test_the_table_is_long_and_every_row_says_what_it_expects() -> None:
    assert len(CASES) >= 60
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert all(case.words and all(case.words) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, stock: Path, tmp_path: Path) -> None:
    done = run(case, stock, tmp_path)
    assert problems(case, done) == [], done.text


HEALTHY = {
    "train on pascal": ("train.py", ("data=pascal", *SMALL), ("pascal",)),
    "test": ("eval.py", (f"ckpt={CKPT}", "trainer=cpu"), ("shapes", "run")),
    "episodes": ("fss", ("data", "episodes", "pascal", "--root", "data/VOC2012", "--out", "list.json"), ("pascal",)),
    "index of coco": ("fss", ("data", "index", "coco", "--root", "data/COCO2014", "--out", "index.json"), ("coco",)),
    "report": ("fss", ("report", "multirun/debug"), ("run",)),
    "prepare": ("fss", ARCHIVES[0].arguments, ("archives",)),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_what_the_rows_damage_is_accepted_undamaged(name: str, stock: Path, tmp_path: Path) -> None:
    program, arguments, needs = HEALTHY[name]
    for place in needs:
        shutil.copytree(stock / PLACES[place], tmp_path / PLACES[place])
    code, text = call(tmp_path, program, *arguments)
    assert code == 0, text


def test_a_defect_keeps_its_traceback(tmp_path: Path) -> None:
    script = tmp_path / "defect.py"
    script.write_text("from fss.cli.friendly import friendly\nfriendly(lambda: [][0])()\n")
    code, text = call(tmp_path, str(script))
    assert code == 1
    assert "Traceback" in text
    assert "IndexError" in text


def test_problems_are_noticed(tmp_path: Path) -> None:
    """The judge of all rows is judged itself."""
    case = Case("x", "fss", (), ("cause", "remedy"))
    good = Outcome(2, "bar\nError: the cause, the\nremedy\n", 0.0, ())
    assert problems(case, good) == []
    assert problems(case, Outcome(0, good.text, 0.0, ())) == ["exit code 0"]
    assert problems(case, Outcome(2, "Error: the cause\n", 0.0, ())) == ["not said: remedy"]
    assert "a traceback" in problems(case, Outcome(2, f"Traceback\n{good.text}", 0.0, ()))
    assert "no message" in problems(case, Outcome(2, "ValueError: cause, remedy\n", 0.0, ()))
    assert problems(case, Outcome(2, good.text, 0.0, ("multirun",))) == ["changed: multirun"]
    before = snapshot(tmp_path)
    (tmp_path / ".list.json.abc.tmp").write_text(json.dumps([]))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".areas.npz.abc.tmp").write_text("half")
    (tmp_path / "cache" / "areas.npz").write_text("whole")
    assert sorted(snapshot(tmp_path).keys() - before.keys()) == [".list.json.abc.tmp", "cache/.areas.npz.abc.tmp"]
