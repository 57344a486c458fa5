"""``fss train`` and ``fss eval``: Hydra's programs, from any folder, with all their arguments passed on."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import typer

from fss.cli.friendly import friendly

PASSED_ON: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}
"""Settings of a command that leaves all its arguments, ``--help`` included, to the program."""


def train(context: typer.Context) -> None:
    """Train and test one run, or a sweep with -m; options are written key=value."""
    _run(import_module("fss.cli.train"), context.args)


def evaluate(context: typer.Context) -> None:
    """Test any checkpoint, with any shot; options are written key=value."""
    _run(import_module("fss.cli.eval"), context.args)


def _run(module: ModuleType, arguments: list[str]) -> None:
    """Run a program with arguments as typed; its file stands for it where more processes are started."""
    sys.argv = [str(module.__file__), *arguments]
    friendly(module.main)()
