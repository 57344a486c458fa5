"""Every method with every backbone, shot and strategy trains, validates and tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.runs.grid import HEADER, SHOTS, STRATEGIES, Cell, cells, row, run

CELLS = list(cells())


def test_all_combinations_are_there() -> None:
    assert len(CELLS) == len(set(CELLS)) == (3 + 3 + 2) * len(SHOTS) * len(STRATEGIES)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "vgg16", "resnet101"])
def test_every_cell(home: Path, backbone: str) -> None:
    trainable: dict[Cell, int] = {}
    for cell in CELLS:
        if cell.backbone == backbone:
            found = run(home, cell)
            assert found["key"]["backbone"] == backbone
            assert found["episodes"]["count"] == 6
            assert row(cell, found).count("|") == HEADER.count("|")
            trainable[cell] = found["parameters"]["backbone_trainable"]
    for cell in trainable:
        freeze, svf, full = (trainable[Cell(cell.method, backbone, cell.shot, s)] for s in STRATEGIES)
        assert 0 == freeze < svf < full
