"""Commands as a user types them: which program there is, and options quoted as Hydra and the shell need it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[2]
_UNQUOTED = re.compile(r"[A-Za-z0-9_/.:%*@?|+-]+(?: +[A-Za-z0-9_/.:%*@?|+-]+)*")
"""Text that Hydra reads as it stands, spaces within included."""
_OTHER_TYPE = re.compile(r"null|true|false|[-+]?(nan|inf|[0-9][0-9_]*(\.[0-9_]*)?(e[-+]?[0-9]+)?)", re.IGNORECASE)
"""Text that Hydra would read as a number, a truth value or nothing."""

_OF_LIGHTNING = ("hydra.run.dir=", "hydra.job.name=train_ddp_process_", "hydra.output_subdir=")
"""Options of the processes that Lightning starts for more devices."""


def program(name: str = "train") -> str:
    """Name the program that trains or tests.

    Args:
        name: ``train`` or ``eval``.

    Returns:
        ``python train.py`` where the package lies in a checkout, ``fss train`` where it was installed.
    """
    return f"python {name}.py" if _in_checkout() else f"fss {name}"


def noun(name: str = "train") -> str:
    """Name the program in the middle of a sentence.

    Args:
        name: ``train`` or ``eval``.

    Returns:
        ``train.py`` in a checkout, ``fss train`` elsewhere.
    """
    return program(name).removeprefix("python ")


def _in_checkout() -> bool:
    return (_CHECKOUT / "src" / "fss").is_dir() and (_CHECKOUT / "train.py").is_file()


def typed(*words: str, name: str = "train") -> str:
    """Write a command that trains or tests.

    Args:
        words: options as Hydra reads them, see :func:`option`.
        name: ``train`` or ``eval``.

    Returns:
        The command, every word quoted as the shell needs it.
    """
    return " ".join([program(name), *map(shlex.quote, words)])


def again() -> str:
    """Write the command that started this program.

    Returns:
        The command as typed, without what Lightning adds for a process of one more device.
    """
    name, words = Path(sys.argv[0]).stem, sys.argv[1:]
    if any(word.startswith("hydra.job.name=train_ddp_process_") for word in words):
        words = [word for word in words if not word.startswith(_OF_LIGHTNING)]
    return typed(*words, name=name) if name in ("train", "eval") else shlex.join([name, *words])


def option(key: str, value: Any) -> str:
    """Write an option as Hydra reads it.

    Args:
        key: dotted, with ``+`` or ``++`` where it must be added.
        value: plain value.

    Returns:
        ``key=value``, the value in quotes where Hydra would read something else; not yet quoted for the shell.
    """
    return f"{key}={_value(value)}"


def shell(text: str | Path) -> str:
    """Quote a word, such as a path, for the shell.

    Args:
        text: the word.
    """
    return shlex.quote(str(text))


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_value(str(k))}:{_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_value, value)) + "]"
    text = str(value)
    if not isinstance(value, str | Path) or (_UNQUOTED.fullmatch(text) and not _OTHER_TYPE.fullmatch(text)):
        return text
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)  # before a quote, Hydra halves backslashes
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return '"' + text.replace("${", "\\${") + '"'
