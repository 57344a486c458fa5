"""Which rows of the paper a run is part of."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fss.config.compose import composed
from fss.reports.paper_tables import cells, tables
from fss.reports.table_rows import label, table_rows


@pytest.fixture(scope="module")
def svf() -> dict[str, Any]:
    return composed(["finetune=svf"])


def test_a_run_is_part_of_every_table_that_needs_it(svf: dict[str, Any]) -> None:
    found = {row.table: row for row in table_rows(svf)}
    needing = {
        table.name for table in tables().values() for row in table.rows
        if table.data == "pascal" and row.label == "SVF" and 1 in row.numbers and row.overrides is not None
        and row.facts["method"] == "baseline" and row.facts["backbone"] == "resnet50"
        and row.facts["novel classes"] == "dropped"
    }  # fmt: skip
    assert found.keys() == needing
    assert len(needing) > 10
    assert found["table03"].metric == "fb_iou"
    assert found["table05"].label == "t05r06 SVF"


def test_other_settings_are_no_rows(svf: dict[str, Any]) -> None:
    for group, key, value in (("data", "novel_images", "keep"), ("finetune", "stages", [4]), ("data", "name", "coco")):
        changed = copy.deepcopy(svf)
        changed[group][key] = value
        assert "table05" not in {row.table for row in table_rows(changed)}, key
    changed = copy.deepcopy(svf)
    changed["shot"] = 5
    assert {row.table for row in table_rows(changed)} & {"table01", "table05"} == {"table01"}


def test_toy_runs_find_their_rows() -> None:
    toy = composed(["finetune=svf", "+size=smoke"])
    assert {"table02", "table05"} <= {row.table for row in table_rows(toy)}, "of any data set"


def test_labels_tell_the_rows_of_a_table_apart() -> None:
    for table in tables().values():
        names = [label(table, row, shot) for row in table.rows for shot in row.numbers]
        assert len(names) == len(set(names)) == len(cells(table.name)) / 4
