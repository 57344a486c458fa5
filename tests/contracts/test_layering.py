"""Imports go down and never in a circle, folders stay small and say their purpose: read from the syntax trees."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "fss"

LEVEL_0 = {
    "input_spec",
    "episode_protocol",
    "types",
    "errors",
    "commands",
    "files",
    "instantiate",
    "results",
    "bootstrap",
}
# package -> the packages of ours, besides itself and level 0, that it may import. A package may only name packages
# above its own line, so the table itself has no circle.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "commands": set(),
    "files": set(),
    "input_spec": set(),
    "episode_protocol": set(),
    "types": set(),
    "instantiate": set(),
    "results": set(),
    "bootstrap": set(),
    "backbones": set(),
    "nn": set(),
    "nn.correlation": {"nn"},
    "nn.matching": {"nn"},
    "finetune.layers": set(),
    "finetune.chains": {"finetune.layers"},
    "finetune": {"finetune.layers", "finetune.chains"},
    "methods": {"nn", "nn.correlation", "nn.matching"},
    "model": {"backbones", "nn", "finetune.layers", "finetune.chains", "finetune", "methods"},
    "data.reading": set(),
    "data.sources": {"data.reading"},
    "data.episodes": {"data.reading", "data.sources"},
    "data.prepare": {"data.reading", "data.sources"},
    "data.shapes": {"data.reading", "data.sources"},
    "data": {"data.reading", "data.sources", "data.episodes"},
    "data.transforms": {"data.reading", "data"},
    "predictor": {"nn", "model", "data", "data.reading", "data.sources"},
    "metrics": {"nn"},
    "lit": {"nn", "finetune", "methods", "model", "metrics"},
    "lit.callbacks": {"nn", "finetune.layers", "finetune.chains", "finetune", "methods", "model", "metrics", "lit"},
    "reports": set(),
    "reports.figures": {"reports"},
    "config": {"backbones", "data.reading", "data.sources", "data.episodes", "data"},
    "checkpoints": {"backbones", "finetune", "methods", "model", "data.reading", "data.sources", "config"},
    "tracking": {"backbones", "finetune.layers", "model", "lit", "reports", "config"},
    "runs.processes": set(),
    "runs": {
        "backbones", "finetune", "methods", "model", "data.reading", "data.sources", "data.episodes", "data", "lit",
        "metrics", "lit.callbacks", "reports", "config", "checkpoints", "tracking", "runs.processes",
    },
    "sweeps": {"config", "runs"},
    "doctor": {"backbones", "data.reading", "data.sources", "config", "tracking", "runs", "runs.processes"},
}  # fmt: skip
TOP = {"fss", "cli", "train", "eval"}  # they may import everything
LEVEL_0_MAY_IMPORT = {
    "instantiate": {"errors", "commands"},
    "results": {"errors"},
    "types": {"input_spec"},
    "episode_protocol": {"errors"},
}
# Programs answer before heavy libraries are imported, so these may import inside functions; below them nobody may.
LAZY = TOP | {"config", "runs", "runs.processes", "sweeps", "doctor", "tracking"}
FAMILIES = {
    "methods",
    "finetune",
    "backbones",
    "data/sources",
    "data/transforms",
}  # one file per member: any number of files
MOST_FILES = 20

NO_TORCH = {
    "errors", "commands", "input_spec", "episode_protocol", "files", "instantiate", "results", "bootstrap", "reports",
    "reports.figures", "config", "sweeps",
}  # fmt: skip
EVERYWHERE = {*MAY_IMPORT}
# library -> the packages that may import it.
LIBRARIES: dict[str, set[str]] = {
    "torch": EVERYWHERE - NO_TORCH,
    "torchvision": {
        "backbones",
        "finetune.chains",
        "finetune",
        "data",
    },  # chains know its blocks
    "timm": {"backbones"},  # these three are optional
    "huggingface_hub": {"backbones"},
    "safetensors": {"backbones"},
    "torchmetrics": {"metrics"},
    "pytorch_lightning": {"data", "lit", "lit.callbacks", "tracking", "runs", "runs.processes"},
    "lightning_fabric": {"tracking"},
    "lightning": set(),
    "hydra": {"config", "runs", "sweeps", "tracking"},
    "omegaconf": {"config", "runs", "sweeps"},
    "typer": set(),
    "wandb": {"tracking"},
    "wandb_workspaces": {"tracking"},
    "matplotlib": {"reports", "reports.figures"},
    "yaml": {"reports", "config", "doctor"},
    "jinja2": {"reports"},
    "markupsafe": {"reports"},
    "rich": {"data.sources", "data.prepare", "data.shapes", "data.episodes", "reports", "runs"},
    "cachetools": {"model", "data.reading", "config"},
    "cv2": {"data", "data.transforms", "data.reading", "data.sources", "data.shapes"},
    "albumentations": {"data", "data.transforms"},
    "PIL": {"data", "data.transforms", "data.reading", "data.sources", "data.prepare"},
    "pycocotools": {"data.sources"},
    "scipy": {"data.prepare", "reports"},
    "numpy": EVERYWHERE - {"errors", "commands", "files", "input_spec", "types", "instantiate", "results", "config"},
    "packaging": {"doctor"},
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
    name: str
    package: str
    imports: tuple[Import, ...]


def imports_of(text: str) -> Iterator[Import]:
    """Yield every import with where it stands; ``from a import b`` counts as ``a.b``."""

    def walk(node: ast.AST, function: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, False, function, typing_only)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}" if node.module else alias.name
                yield Import(full, node.lineno, node.level > 0, function, typing_only)
        inside = function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside, typing_only or guarded)

    yield from walk(ast.parse(text), False, False)


def package_of(path: Path, source: Path = SOURCE) -> str:
    """Return the folder of a file as a dotted name, for top-level files the file itself."""
    parts = path.relative_to(source).with_suffix("").parts
    if len(parts) == 1:
        return "fss" if parts[0] == "__init__" else parts[0]
    return ".".join(parts[:-1])


def modules(source: Path = SOURCE) -> list[Module]:
    found = []
    for path in sorted(source.rglob("*.py")):
        name = ".".join(("fss", *path.relative_to(source).with_suffix("").parts)).removesuffix(".__init__")
        found.append(Module(path, name, package_of(path, source), tuple(imports_of(path.read_text()))))
    return found


def programs() -> list[Module]:
    paths = (ROOT / "train.py", ROOT / "eval.py")
    return [Module(p, p.stem, p.stem, tuple(imports_of(p.read_text()))) for p in paths]


def edges(found: list[Module]) -> dict[str, set[str]]:
    """Return file -> the files that it imports, wherever the statement stands."""
    names = {m.name for m in found}
    return {m.name: {t for i in m.imports if (t := target(i.name, names)) is not None and t != m.name} for m in found}


def target(imported: str, names: set[str]) -> str | None:
    """Return the file that ``from a import b`` reads: b if it is a file, else a."""
    return next((n for n in (imported, imported.rpartition(".")[0]) if n in names), None)


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the files of a circle of imports; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


MODULES = modules()
NAMES = {m.name for m in MODULES}
LOWER = [m for m in MODULES if m.package not in TOP]


def ids(module: Module) -> str:
    return module.path.relative_to(ROOT).as_posix()


def test_every_module_is_seen_and_has_a_level() -> None:
    assert len(MODULES) > 200
    assert len(LOWER) > 180
    assert {m.package for m in MODULES} == MAY_IMPORT.keys() | {"fss", "cli"}
    assert sum(len(m.imports) for m in MODULES) > 1000


def test_the_table_has_no_circle() -> None:
    seen: set[str] = set()
    for package, allowed in MAY_IMPORT.items():
        assert allowed <= seen, f"{package} names packages that stand below it: {sorted(allowed - seen)}"
        seen.add(package)


def test_the_reader_of_imports_sees_every_form() -> None:
    text = """
import fss.lit.optim
from fss import data
from . import sibling
if TYPE_CHECKING:
    import torch
class A:
    def f(self):
        from fss.cli import main
"""
    seen = list(imports_of(text))
    assert [i.name for i in seen] == ["fss.lit.optim", "fss.data", "sibling", "torch", "fss.cli.main"]
    assert [i.relative for i in seen] == [False, False, True, False, False]
    assert [i.typing_only for i in seen] == [False, False, False, True, False]
    assert [i.in_function for i in seen] == [False, False, False, False, True]


def test_no_file_imports_itself_by_a_detour() -> None:
    graph = edges(MODULES)
    assert sum(map(len, graph.values())) > 800, "the graph has lost its edges; this test checks nothing"
    assert circle(graph) == []


@pytest.mark.parametrize("form", ["from fss.b import f", "import fss.b", "def g():\n    from fss import b"])
def test_a_planted_circle_is_found(form: str, tmp_path: Path) -> None:
    """Also where an import is hidden in a function."""
    (tmp_path / "__init__.py").write_text('"""Planted."""\n')
    (tmp_path / "a.py").write_text(f"{form}\n")
    (tmp_path / "b.py").write_text("from fss.c import h\n")
    (tmp_path / "c.py").write_text("h = 1\n")
    assert circle(edges(modules(tmp_path))) == []
    (tmp_path / "c.py").write_text("from fss.a import g\n")
    assert set(circle(edges(modules(tmp_path)))) == {"fss.a", "fss.b", "fss.c"}


@pytest.mark.parametrize("module", LOWER, ids=ids)
def test_imports_of_ours_go_down(module: Module) -> None:
    allowed = MAY_IMPORT[module.package] | LEVEL_0 | {module.package}
    if module.package in LEVEL_0:
        allowed = LEVEL_0_MAY_IMPORT.get(module.package, set())
    wrong = []
    for item in module.imports:
        file = target(item.name, NAMES) if item.name.split(".")[0] == "fss" else None
        if file is not None and _package(file) not in allowed:
            wrong.append(f"line {item.line}: {item.name}")
    assert not wrong, f"{ids(module)} may import only {sorted(allowed)}"


def _package(name: str) -> str:
    return next(m.package for m in MODULES if m.name == name)


@pytest.mark.parametrize("module", LOWER, ids=ids)
def test_libraries_stay_where_they_belong(module: Module) -> None:
    wrong = []
    for item in module.imports:
        library = item.name.split(".")[0]
        if item.relative or library in {"fss", "__future__"} or library in sys.stdlib_module_names:
            continue
        assert library in LIBRARIES, f"{ids(module)}: {library} is not in the table of this test"
        if module.package not in LIBRARIES[library] and not item.typing_only:
            wrong.append(f"line {item.line}: {item.name}")
    assert not wrong


def test_lightning_within_data_only_in_datamodules() -> None:
    users = [m for m in LOWER if any(i.name.startswith("pytorch_lightning") for i in m.imports)]
    within_data = [m.path.name for m in users if m.package == "data"]
    assert within_data, "the data module has moved; this test checks nothing"
    assert all(name.endswith("datamodule.py") for name in within_data)


@pytest.mark.parametrize("module", [*MODULES, *programs()], ids=ids)
def test_no_relative_import_and_no_lazy_one_below_the_programs(module: Module) -> None:
    assert not [f"line {i.line}" for i in module.imports if i.relative]
    if module.package not in LAZY:
        assert not [f"line {i.line}: {i.name}" for i in module.imports if i.in_function and not i.typing_only]


FOLDERS = sorted({p.parent for p in SOURCE.rglob("*.py")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.relative_to(SOURCE.parent).as_posix())
def test_a_folder_is_a_table_of_contents(folder: Path) -> None:
    """No more files than one reads at a glance, and one purpose, which the package's first line says."""
    files = list(folder.glob("*.py"))
    if folder.relative_to(SOURCE).as_posix() not in FAMILIES:
        assert len(files) <= MOST_FILES, f"{folder.name} holds {len(files)} files: look for the second purpose in it"
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert text, f"{folder} does not say its purpose"
    first = text.splitlines()[0]
    assert first.endswith("."), first
    assert 20 < len(first) <= 118, first


HEAVY = ("pytorch_lightning", "lightning_fabric", "hydra", "omegaconf", "torchmetrics", "albumentations", "wandb")
LOADING = """
import sys
import numpy as np
import torch
import fss
from fss.model.build import build_model
config = {
    "backbone": {"_target_": "fss.backbones.resnet.ResNet", "name": "resnet18", "depth": 18, "width": 8,
                 "stem": "torchvision", "dilation": "torchvision", "weights": "none"},
    "method": {"_target_": "fss.methods.baseline.Baseline", "name": "baseline", "width": 8},
    "finetune": {"_target_": "fss.finetune.svf.SVF", "name": "svf"},
    "data": {"name": "shapes", "size": 65}, "recipe": {}, "trainer": {}, "fold": 0, "shot": 1,
}
from fss.model.build import build_strategy
model = build_model(config)
build_strategy(config["finetune"]).apply(model.backbone)
state = {f"model.{k}": v for k, v in model.state_dict().items()}
torch.save({"state_dict": state, "fss": {"format": 2, "config": config, "identity": "0" * 64}}, "x.ckpt")
loaded = fss.load("x.ckpt", merge=True)
found = fss.Predictor.load("x.ckpt")(np.zeros((40, 50, 3), np.uint8), [
    (np.zeros((40, 50, 3), np.uint8), np.ones((40, 50), np.uint8))])
assert found.mask.shape == (40, 50)
print(sorted(set(%r) & sys.modules.keys()))
"""


def test_loading_and_predicting_import_no_training(tmp_path: Path) -> None:
    code = LOADING % (HEAVY,)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
