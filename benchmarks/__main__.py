"""All measurements as one table: ``make bench``, or ``python -m benchmarks training data --write FILE``."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from pathlib import Path

import torch

from benchmarks.rows import Row
from fss.files import atomic

HERE = Path(__file__).parent
HELPERS = {"__init__", "__main__", "heads", "rows", "released_form", "spent", "timm_injection"}
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


def main(arguments: list[str]) -> int:
    """Measure and print a Markdown table.

    Args:
        arguments: names of measurements, none for all; ``--write FILE`` keeps the table when all is measured.

    Returns:
        Exit status: 2 if a name is unknown.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("wanted", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(names())}; none: all")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown file for the finished table")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.wanted) - set(names()))
    if unknown:
        sys.stderr.write(f"Error: {', '.join(unknown)} cannot be measured: choose among {', '.join(names())}.\n")
        return 2
    lines = [machine(), "", *HEADER.splitlines()]
    print("\n".join(lines), flush=True)
    for name in given.wanted or names():
        begun = time.perf_counter()
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            lines.append(line(row))
            print(lines[-1], flush=True)
        sys.stderr.write(f"({name}: {time.perf_counter() - begun:.0f} s)\n")
    if given.write is not None:
        command = " ".join(["python -m benchmarks", *arguments])
        with atomic(given.write) as file:
            file.write("\n".join([f"# Measurements\n\nWritten by `{command}` on:", *lines, ""]).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
