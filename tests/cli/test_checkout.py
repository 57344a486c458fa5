"""A program of one checkout never runs the code of another, and a commit is recorded only of the code itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fss
from fss.cli.checkout import refuse_mixture
from fss.errors import FssError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(fss.__file__).parent


def test_our_own_program_runs_our_own_code() -> None:
    refuse_mixture(str(ROOT / "train.py"))


def test_a_program_without_code_beside_it_runs_the_installed_code(tmp_path: Path) -> None:
    refuse_mixture(str(tmp_path / "train.py"))


def test_another_checkout_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "src" / "fss"
    other.mkdir(parents=True)
    with pytest.raises(FssError, match=r"another copy of fss.*\.venv/bin/python") as caught:
        refuse_mixture(str(tmp_path / "train.py"))
    assert str(SOURCE) in str(caught.value)


def test_train_py_refuses_before_anything_is_composed(tmp_path: Path) -> None:
    for name in ("train.py", "eval.py"):
        shutil.copy(ROOT / name, tmp_path / name)
        (tmp_path / "src" / "fss").mkdir(parents=True, exist_ok=True)
        done = subprocess.run([sys.executable, name, "fold=0"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert "another copy of fss" in done.stderr
        assert not (tmp_path / "multirun").exists()


def test_a_package_below_a_foreign_repository_has_no_commit(tmp_path: Path) -> None:
    """An installed package below another project's repository used to record that project's commit."""

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "theirs.txt").write_text("x")
    git("add", "theirs.txt")
    git("commit", "-qm", "theirs")
    site = tmp_path / ".venv" / "site"
    shutil.copytree(SOURCE, site / "fss", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; sys.path.insert(0, sys.argv[1]); from fss.runs.provenance import commit; print(commit())"
    done = subprocess.run([sys.executable, "-c", code, str(site)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
    git("add", "-f", ".venv")
    git("commit", "-qm", "ours too")
    done = subprocess.run([sys.executable, "-c", code, str(site)], capture_output=True, text=True, check=True)
    assert len(done.stdout.strip().removesuffix("+dirty")) == 40
