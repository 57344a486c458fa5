"""Commands in hints can be typed: Hydra and the shell read back what was meant."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import fss.commands
from fss.commands import again, option, program, shell, typed
from fss.config.places import CONF
from fss.data.sources.shapes import ShapesSource
from fss.errors import FssError

SOURCE = Path(fss.commands.__file__).parent
FILES = re.compile(r"\b(train|eval)\.py\b")
VALUES = [
    "data/shapes", "runs/lr=0.1", "a#b", "Bilder für mich", "it's", 'say "x"', "back\\slash", "end\\", 'c:\\"q',
    "${x}", "$HOME", "1", "null", "true", "1e3", "1_000", "a,b", "[x]", "(a)", "{b}", " lead", "", "a:b", "~x", "a;b&c",
    "中文", "-x", "a!b", None, True, 3, 2.5, [1, "a=b"], ["data.epochs=20", "x"],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_an_option_is_read_back_as_it_was(value: Any) -> None:
    word = option("data.root", value)
    assert shlex.split(typed(word)) == [*program().split(), word]
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        cfg = compose("config", overrides=["data=shapes", word])
    assert OmegaConf.to_container(cfg.data)["root"] == (value if value != "${x}" else "\\${x}")


def test_simple_options_stand_as_they_are() -> None:
    assert typed("-m", option("fold", 2), option("data.root", Path("data/shapes"))) == (
        "python train.py -m fold=2 data.root=data/shapes"
    )
    assert typed(option("finetune.stages", [3, 4]), name="eval") == "python eval.py 'finetune.stages=[3,4]'"
    assert shell(Path("with space")) == "'with space'"


def test_an_installed_package_has_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fss.commands, "_CHECKOUT", tmp_path)
    assert (program(), program("eval")) == ("fss train", "fss eval")


def test_a_hint_quotes_the_folder_of_a_data_set() -> None:
    with pytest.raises(FssError, match="fss data shapes --root 'my data/#1'"):
        ShapesSource("my data/#1").check("train")


def said(path: Path) -> list[tuple[Path, int, str]]:
    """List the texts of a file that a user may read, with place: strings that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        (path, node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent
    ]


def test_no_text_names_a_program_that_an_installed_package_lacks() -> None:
    """``fss.commands`` alone spells them."""
    texts = [text for path in SOURCE.rglob("*.py") if path.name != "commands.py" for text in said(path)]
    assert len(texts) > 1000
    assert not [place for place in texts if FILES.search(place[-1])]


def test_no_help_text_names_a_program_that_an_installed_package_lacks() -> None:
    code = """
import pathlib, fss.commands
fss.commands._CHECKOUT = pathlib.Path("/nowhere")
import typer
from fss.cli.main import app
def show(command, name):
    print(command.get_help(typer.Context(command, info_name=name)))
    for name, inner in getattr(command, "commands", {}).items():
        show(inner, name)
show(typer.main.get_command(app), "fss")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "Train with: fss train" in done.stdout
    assert done.stdout.count("Usage: ") > 15
    assert not FILES.findall(done.stdout)


def test_the_command_again_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ['hydra.run.dir="x"', "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/fss/cli/train.py", "-m", "fold=0,1", "data.root=a b", *own])
    assert again() == "python train.py -m fold=0,1 'data.root=a b'"
    monkeypatch.setattr(sys, "argv", ["/bin/fss", "pretrain", "--data", "a b", "hydra.run.dir=x"])
    assert again() == "fss pretrain --data 'a b' hydra.run.dir=x"
