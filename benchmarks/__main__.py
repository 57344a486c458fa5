"""All measurements as one table: ``make bench``, or ``python -m benchmarks training data``."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from pathlib import Path

import torch

from benchmarks.rows import Row

HERE = Path(__file__).parent
HELPERS = {"__init__", "__main__", "rows", "released_form"}
HEADER = "| measured | ours | reference | ratio | target | |\n| :-- | --: | --: | --: | :-- | :-- |"


def names() -> list[str]:
    """List what can be measured: every module here that has ``rows``."""
    return sorted(p.stem for p in HERE.glob("*.py") if p.stem not in HELPERS)


def machine() -> str:
    """Describe where this runs."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    kind = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores of {kind}{gpu}; Python {platform.python_version()}, torch {torch.__version__}"


def line(row: Row) -> str:
    """Return a line of the table."""
    mark = "" if not row.target else ("reached" if row.met else "missed")
    return f"| {row.name} | {row.ours} | {row.reference} | {row.ratio:.2f} | {row.target} | {mark} |"


def main(wanted: list[str]) -> int:
    """Measure and print a Markdown table.

    Args:
        wanted: names of measurements; none: all.

    Returns:
        Exit status: 2 if a name is unknown.
    """
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        sys.stderr.write(f"Error: {', '.join(unknown)} cannot be measured: choose among {', '.join(names())}.\n")
        return 2
    print(f"{machine()}\n\n{HEADER}", flush=True)
    for name in wanted or names():
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            print(line(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
