"""What is wrong with a folder of strategies and its folder of yaml files; takes any two, so that it can be tried."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from fss.finetune.base import Strategy

REFERENCE = re.compile(r"(section|Tables?|appendix|equation) [A-Z]?\d")
FORMULA = re.compile(r"\bW\b|=|x \+ ")


def members(package: Path, name: str = "fss.finetune") -> dict[str, type[Strategy]]:
    """Concrete strategies that the files of a package define: import path -> class."""
    found: dict[str, type[Strategy]] = {}
    for path in sorted(package.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"{name}.{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with _registered(module):
            spec.loader.exec_module(module)
        for attribute, cls in vars(module).items():
            own = inspect.isclass(cls) and cls.__module__ == module.__name__
            if own and issubclass(cls, Strategy) and not inspect.isabstract(cls):
                found[f"{module.__name__}.{attribute}"] = cls
    return found


@contextmanager
def _registered(module: ModuleType) -> Iterator[None]:
    """A module in ``sys.modules`` while it executes (dataclasses look there); the real one is put back after."""
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before


def problems(package: Path, conf: Path) -> list[str]:
    """Everything that keeps a strategy from being found or understood.

    Args:
        package: folder of the classes.
        conf: folder of the yaml files.

    Returns:
        One line per problem; empty if all is well.
    """
    classes = members(package)
    nodes = {path: yaml.safe_load(path.read_text()) for path in sorted(conf.glob("*.yaml"))}
    named = {str(node["_target_"]) for node in nodes.values()}
    wrong = [f"{target} has no yaml" for target in sorted(classes.keys() - named)]
    for path, node in nodes.items():
        cls = classes.get(str(node["_target_"]))
        if cls is None:
            wrong.append(f"{path.name} names {node['_target_']}, which does not exist")
        else:
            wrong += [f"{path.name}: {text}" for text in _disagreements(path, node, cls)]
    for target, cls in classes.items():
        wrong += [f"{target}: {text}" for text in _undocumented(cls)]
    return wrong


def _disagreements(path: Path, node: dict[str, Any], cls: type[Strategy]) -> list[str]:
    names = {path.stem, node.get("name"), cls.__dict__.get("name"), cls.__module__.rsplit(".", 1)[-1]}
    wrong = [] if len(names) == 1 else [f"file, yaml, name and module differ: {sorted(map(str, names))}"]
    options, parameters = node.keys() - {"name", "_target_"}, inspect.signature(cls).parameters
    wrong += [f"option {o} is no argument of {cls.__name__}" for o in sorted(options - parameters.keys())]
    wrong += [f"argument {p} of {cls.__name__} is no option" for p in sorted(parameters.keys() - options)]
    lines = path.read_text().splitlines()
    wrong += [f"option {o} has no comment" for o in sorted(options) if not any(_explains(line, o) for line in lines)]
    shared = options & parameters.keys()
    return wrong + [f"default of {o} differs" for o in sorted(shared) if not _same(node[o], parameters[o].default)]


def _explains(line: str, option: str) -> bool:
    return line.startswith(f"{option}:") and " # " in line


def _same(given: Any, default: Any) -> bool:
    return given == (list(default) if isinstance(default, tuple) else default)


def _undocumented(cls: type[Strategy]) -> list[str]:
    text = cls.__dict__.get("__doc__") or ""
    wrong = []
    if not text:
        wrong.append("has no docstring")
    else:
        wrong += [] if FORMULA.search(text) else ["its docstring has no formula"]
        wrong += [] if REFERENCE.search(text) else ["its docstring names no section, table or equation"]
    arguments = inspect.getdoc(cls.__init__) or ""
    missing = [p for p in inspect.signature(cls).parameters if not re.search(rf"^ *{p}: ", arguments, re.MULTILINE)]
    return wrong + [f"argument {p} is not documented" for p in missing]
