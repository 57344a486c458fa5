"""What ``fss doctor`` finds, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from fss.errors import first_line

State = Literal["ok", "note", "missing", "problem"]


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        state: ``ok``; ``note``: worth knowing, nothing to mend; ``missing``: not there; ``problem``: there, but not
            usable as it is.
        text: what was found, in words.
        command: what provides or mends it, ready to type; None where there is nothing to do.
        blocks: the default run cannot start because of it.
        facts: the same as numbers and plain values, for ``--json``.
    """

    name: str
    state: State
    text: str
    command: str | None = None
    blocks: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def guarded(name: str, look: Callable[[], Iterator[CheckResult]]) -> list[CheckResult]:
    """Collect findings, whatever happens: a damaged file must not hide all the others.

    Args:
        name: what is looked at, for the finding that reports a failure.
        look: yields the findings.

    Returns:
        All findings; the last one tells what could not be examined.
    """
    found: list[CheckResult] = []
    try:
        found.extend(look())
    except Exception as error:  # anything may lie on a disk
        text = f"could not be examined: {type(error).__name__}: {first_line(error)}"
        found.append(CheckResult(name, "problem", text))
    return found


def size(count: float) -> str:
    """Return a number of bytes in words.

    Args:
        count: bytes.
    """
    return f"{count / 2**30:,.1f} GiB"
