"""Time until the programs answer: ``python -m benchmarks.startup``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5

# what is asked, its arguments, exit status, words of the answer, seconds allowed
ASKED = (
    ("train.py --help", ["--help"], 0, "fold", 2.0),
    ("a wrong option", ["fold=7"], 2, "fold=7", 3.0),
    ("an unknown choice", ["finetune=nothing"], 2, "svf", 3.0),
)


def answer(arguments: list[str], status: int, words: str) -> float:
    """Return the seconds of one call of train.py.

    Args:
        arguments: of the program.
        status: with which it must end.
        words: that it must print.

    Raises:
        RuntimeError: if it answers something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        command = [sys.executable, str(ROOT / "train.py"), *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        taken = time.perf_counter() - begun
    if done.returncode != status or words not in done.stdout + done.stderr:
        raise RuntimeError(f"train.py {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-500:]}")
    return taken


def rows() -> list[Row]:
    """Measure the best of some calls, against the time that importing torch and Lightning alone takes.

    Returns:
        The lines of the table.
    """
    heavy = [sys.executable, "-c", "import torch, pytorch_lightning"]
    other = []
    for _ in range(2):
        begun = time.perf_counter()
        subprocess.run(heavy, check=True, capture_output=True)
        other.append(time.perf_counter() - begun)
    made = []
    for name, arguments, status, words, limit in ASKED:
        taken = min(answer(arguments, status, words) for _ in range(ROUNDS))
        ratio = taken / min(other)
        made.append(Row(name, f"{taken:.2f} s", f"{min(other):.2f} s", ratio, f"ours < {limit:g} s", taken < limit))
    return made


if __name__ == "__main__":
    for row in rows():
        print(f"{row.name:45s} {row.ours:>9s} {row.reference:>9s} {row.ratio:6.2f}  {row.target}")
