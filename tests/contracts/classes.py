"""Classes that the files of a package define, found by reading the folder."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import fss

SOURCE = Path(fss.__file__).parent
OPTIONAL = {"timm", "huggingface_hub", "safetensors"}
"""Packages that a file may need and a user need not have."""


def defined(package: str, wanted: Callable[[type], bool]) -> dict[str, type]:
    """Concrete classes that the files of a package define and no other of them builds on.

    Args:
        package: such as ``data.sources``.
        wanted: tells whether a class counts.

    Returns:
        Import path -> class.
    """
    found = {}
    for path in sorted((SOURCE / package.replace(".", "/")).glob("*.py")):
        try:
            module = importlib.import_module(f"fss.{package}.{path.stem}".removesuffix(".__init__"))
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            continue
        for name, cls in vars(module).items():
            own = inspect.isclass(cls) and cls.__module__ == module.__name__
            if own and not inspect.isabstract(cls) and wanted(cls):
                found[f"{module.__name__}.{name}"] = cls
    bases = {base for cls in found.values() for base in cls.__mro__[1:]}
    return {path: cls for path, cls in found.items() if cls not in bases}
