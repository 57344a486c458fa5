"""Print how close every released model comes to its vectors: python -m tests.golden.coverage [ID ...]."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tests.golden.released import converted, deviation, measure
from tests.golden.vectors import Vector, vectors

HEADER = ("source", "method", "backbone", "K", "SVF", "outputs", "losses")


def deviations(vector: Vector, folder: Path) -> tuple[float, float | None]:
    """Return the largest relative deviation of outputs and of losses, through fss convert and fss.load."""
    outputs, losses = measure(converted(folder, vector.released), vector.released)
    assert outputs.keys() == vector.outputs.keys()
    worst = max(deviation(outputs[name], expected) for name, expected in vector.outputs.items())
    return worst, deviation(losses, vector.losses) if vector.losses else None


def rows(chosen: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(HEADER)} |"
    yield f"|{' --- |' * len(HEADER)}"
    for vector in vectors():
        if chosen and vector.id not in chosen:
            continue
        with tempfile.TemporaryDirectory() as folder:
            out, loss = deviations(vector, Path(folder))
        r = vector.released
        cells = [r.source, r.method, r.backbone, str(r.shot), "yes" if r.finetune == "svf" else "no"]
        yield f"| {' | '.join([*cells, f'{out:.1e}', '-' if loss is None else f'{loss:.1e}'])} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for row in rows(sys.argv[1:]):
        print(row, flush=True)  # noqa: T201  # the table is the program's output
