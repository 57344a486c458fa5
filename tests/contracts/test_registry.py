"""Every strategy has a class, a yaml, one name and documentation; the checker is shown to find what lacks one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.contracts.registry import members, problems

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, CONF = ROOT / "src" / "fss" / "finetune", ROOT / "conf" / "finetune"
CLASS = '''"""A new strategy."""

from typing import ClassVar

from fss.finetune.base import Strategy


class Extra(Strategy):
    """Train nothing: W stays W (SVF paper, Table 1)."""

    name: ClassVar[str] = "extra"

    def __init__(self, size: int = 3) -> None:
        """Choose.

        Args:
            size: of something.
        """
        self.size = size

    def trainable(self, backbone):
        """Yield nothing."""
        return iter(())
'''
YAML = "name: extra\n_target_: fss.finetune.extra.Extra\nsize: 3 # of something\n"


@dataclass
class Tree:
    """A copy of the strategies that may be spoilt."""

    package: Path
    conf: Path

    def add(self, text: str = CLASS, node: str = YAML) -> None:
        (self.package / "extra.py").write_text(text)
        (self.conf / "extra.yaml").write_text(node)

    def problems(self) -> list[str]:
        return problems(self.package, self.conf)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(
        Path(shutil.copytree(PACKAGE, tmp_path / "finetune", ignore=shutil.ignore_patterns("__pycache__"))),
        Path(shutil.copytree(CONF, tmp_path / "conf")),
    )


def test_every_strategy_is_in_order() -> None:
    found = members(PACKAGE)
    assert len(found) == len(list(CONF.glob("*.yaml"))) >= 15
    assert problems(PACKAGE, CONF) == []


def test_a_complete_new_strategy_is_in_order_without_touching_other_files(tree: Tree) -> None:
    tree.add()
    assert tree.problems() == []
    assert "fss.finetune.extra.Extra" in members(tree.package)
    assert "fss.finetune.extra" not in sys.modules


DEFECTS: dict[str, tuple[Callable[[Tree], None], str]] = {
    "yaml without a class": (
        lambda t: (t.add(), (t.package / "extra.py").unlink())[0],
        "extra.yaml names fss.finetune.extra.Extra, which does not exist",
    ),
    "class without a yaml": (
        lambda t: (t.add(), (t.conf / "extra.yaml").unlink())[0],
        "fss.finetune.extra.Extra has no yaml",
    ),
    "second class in a file": (
        lambda t: t.add(CLASS + "\n\nclass More(Extra):\n    " + '"""W = W (section 3)."""\n'),
        "fss.finetune.extra.More has no yaml",
    ),
    "no docstring": (
        lambda t: t.add(CLASS.replace('    """Train nothing: W stays W (SVF paper, Table 1)."""\n', "")),
        "fss.finetune.extra.Extra: has no docstring",
    ),
    "docstring without a formula": (
        lambda t: t.add(CLASS.replace("W stays W ", "")),
        "fss.finetune.extra.Extra: its docstring has no formula",
    ),
    "docstring without a place in a paper": (
        lambda t: t.add(CLASS.replace(", Table 1", "")),
        "fss.finetune.extra.Extra: its docstring names no section, table or equation",
    ),
    "argument without documentation": (
        lambda t: t.add(CLASS.replace("            size: of something.\n", "")),
        "fss.finetune.extra.Extra: argument size is not documented",
    ),
    "option without a comment": (
        lambda t: t.add(node=YAML.replace(" # of something", "")),
        "extra.yaml: option size has no comment",
    ),
    "option that is no argument": (
        lambda t: t.add(node=YAML + "depth: 2 # of something\n"),
        "extra.yaml: option depth is no argument of Extra",
    ),
    "argument that is no option": (
        lambda t: t.add(node=YAML.replace("size: 3 # of something\n", "")),
        "extra.yaml: argument size of Extra is no option",
    ),
    "two defaults": (
        lambda t: t.add(node=YAML.replace("size: 3", "size: 4")),
        "extra.yaml: default of size differs",
    ),
    "two names": (
        lambda t: t.add(node=YAML.replace("name: extra", "name: other")),
        "extra.yaml: file, yaml, name and module differ: ['extra', 'other']",
    ),
}


@pytest.mark.parametrize("defect", sorted(DEFECTS))
def test_a_defect_is_found_and_named(defect: str, tree: Tree) -> None:
    spoil, text = DEFECTS[defect]
    spoil(tree)
    assert tree.problems() == [text]
