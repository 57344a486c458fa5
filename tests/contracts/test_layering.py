"""Imports go one way: the table "Layers" of the style guide, read from the syntax trees of all files."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "fss"

LEVEL_0 = {"types", "errors", "files"}
# package -> the packages of ours, besides itself and level 0, that it may import.
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "files": set(),
    "data": set(),
    "backbones": set(),
    "nn": set(),
    "finetune": set(),
    "methods": {"nn"},
    "metrics": {"nn"},
    "lit": {"nn", "finetune", "methods", "metrics"},
    "checkpoints": {"backbones", "finetune"},
    "reports": set(),
}
TOP = {"fss", "api", "prediction", "cli", "train", "eval"}  # level 4: everything
# library -> the packages of levels 0 to 3 that may import it.
LIBRARIES: dict[str, set[str]] = {
    "torch": set(MAY_IMPORT) - {"errors", "files", "reports"},
    "torchvision": {"data", "backbones", "finetune"},  # finetune knows the blocks that it runs in one step
    "torchmetrics": {"metrics"},
    "pytorch_lightning": {"data", "lit"},
    "lightning": set(),
    "hydra": set(),
    "omegaconf": set(),
    "typer": set(),
    "wandb": set(),
    "matplotlib": {"reports"},
    "yaml": {"reports"},
    "jinja2": {"reports"},
    "markupsafe": {"reports"},
    "rich": {"data", "reports"},
    "cv2": {"data"},
    "albumentations": {"data"},
    "PIL": {"data"},
    "pycocotools": {"data"},
    "scipy": {"data"},
    "numpy": {"data", "lit", "reports"},
}


@dataclass(frozen=True)
class Import:
    name: str
    line: int
    relative: bool
    in_function: bool
    typing_only: bool


@dataclass(frozen=True)
class Module:
    path: Path
    package: str
    imports: tuple[Import, ...]


def imports_of(text: str, names: bool = True) -> Iterator[Import]:
    """Yield every import with the place where it stands; ``from fss import x`` counts as ``fss.x``."""

    def walk(node: ast.AST, function: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, False, function, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for full in {f"fss.{a.name}" for a in node.names} if base == "fss" and names else {base}:
                yield Import(full, node.lineno, node.level > 0, function, typing_only)
        inside = function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside, typing_only or guarded)

    yield from walk(ast.parse(text), False, False)


def modules() -> list[Module]:
    found = []
    for path in [*sorted(SOURCE.rglob("*.py")), ROOT / "train.py", ROOT / "eval.py"]:
        if SOURCE in path.parents:
            first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
            package = "fss" if first == "__init__" else first
        else:
            package = path.stem
        found.append(Module(path, package, tuple(imports_of(path.read_text()))))
    return found


MODULES = modules()
LOWER = [m for m in MODULES if m.package not in TOP]


def ids(module: Module) -> str:
    return module.path.relative_to(ROOT).as_posix()


def test_every_module_is_seen_and_has_a_level() -> None:
    assert len(MODULES) > 60
    assert len(LOWER) > 50
    assert {m.package for m in MODULES} == MAY_IMPORT.keys() | TOP
    assert sum(len(m.imports) for m in MODULES) > 400


def test_the_reader_of_imports_sees_every_form() -> None:
    text = """
import fss.lit.optim
from fss import data
from . import sibling
if TYPE_CHECKING:
    import torch
class A:
    def f(self):
        from fss.cli import edge
"""
    seen = list(imports_of(text))
    assert [i.name for i in seen] == ["fss.lit.optim", "fss.data", "", "torch", "fss.cli"]
    assert [i.relative for i in seen] == [False, False, True, False, False]
    assert [i.typing_only for i in seen] == [False, False, False, True, False]
    assert [i.in_function for i in seen] == [False, False, False, False, True]


@pytest.mark.parametrize("module", LOWER, ids=ids)
def test_imports_of_ours_go_down(module: Module) -> None:
    allowed = MAY_IMPORT[module.package] | LEVEL_0
    if module.package not in LEVEL_0:
        allowed |= {module.package}
    ours = [i for i in module.imports if i.name.split(".")[0] == "fss"]
    wrong = [f"line {i.line}: {i.name}" for i in ours if [*i.name.split("."), "fss"][1] not in allowed]
    assert not wrong, f"{ids(module)} may import only {sorted(allowed)}"


@pytest.mark.parametrize("module", LOWER, ids=ids)
def test_libraries_stay_where_they_belong(module: Module) -> None:
    wrong = []
    for item in module.imports:
        library = item.name.split(".")[0]
        if item.relative or library in {"fss", "__future__"} or library in sys.stdlib_module_names:
            continue
        assert library in LIBRARIES, f"{ids(module)}: {library} has no place in the table of this test"
        if module.package not in LIBRARIES[library]:
            wrong.append(f"line {item.line}: {item.name}")
    assert not wrong


def test_lightning_within_data_only_in_datamodules() -> None:
    users = [m for m in LOWER if any(i.name.startswith("pytorch_lightning") for i in m.imports)]
    within_data = [m.path.name for m in users if m.package == "data"]
    assert within_data, "the data module has moved; this test checks nothing"
    assert all(name.endswith("datamodule.py") for name in within_data)


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_no_relative_import_and_no_lazy_one_below_the_edge(module: Module) -> None:
    assert not [f"line {i.line}" for i in module.imports if i.relative]
    if module.package not in TOP:
        assert not [f"line {i.line}: {i.name}" for i in module.imports if i.in_function and not i.typing_only]


def test_nothing_imports_the_edge_but_the_edge() -> None:
    for module in LOWER:
        for item in module.imports:
            assert not item.name.startswith(("fss.cli", "fss.model.checkpoint")), ids(module)
