"""``fss strategies`` prints the counts of the closed forms, and what its note says is so."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.closed_forms import NETWORKS
from tests.contracts.declared import closed_form
from typer.testing import CliRunner

from fss.cli import strategies
from fss.cli.main import app
from fss.config.compose import composed
from fss.model.build import build_model


def fss(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["strategies", *arguments], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_rows_are_sorted_and_counted() -> None:
    code, text = fss("svf", "freeze", "adapter", "--backbone", "resnet50_v2", "--backbone", "vgg16")
    assert code == 0
    rows = [line for line in text.splitlines() if "%)" in line]
    assert [next(n for n in ("svf", "freeze", "adapter") if n in row) for row in rows] == ["freeze", "svf", "adapter"]
    for row, name in zip(rows, ("freeze", "svf", "adapter"), strict=True):
        for network in ("resnet50", "vgg16"):
            assert f" {sum(closed_form(name)(NETWORKS[network]()).values()):,} (" in row
    assert "12,544 (0.053 %)" in rows[1]
    assert "3,840 (0.026 %)" in rows[1]
    assert "0.25 %" in rows[1]
    assert "0.25 %" not in rows[2]


def test_options_of_train_reach_every_row() -> None:
    code, text = fss("svf", "--backbone", "resnet50_v2", "--option", "finetune.stages=[4]")
    assert code == 0
    assert "5,632 (0.024 %)" in text


def test_a_strategy_that_finds_nothing_is_shown_as_refused() -> None:
    code, text = fss("svf_ln", "ln", "bn", "--backbone", "resnet18")
    assert code == 0
    rows = [line for line in text.splitlines() if "resnet18" not in line and ("refused" in line or "%)" in line)][:3]
    assert [("refused" in row, "%)" in row) for row in rows] == [(True, False), (True, False), (False, True)]
    assert "refused: the backbone has nothing that the strategy trains." in " ".join(text.split())


def test_the_note_is_true() -> None:
    """4,917,250 values of the baseline's head train, so S is a quarter of a per cent of all that trains."""
    config = composed(["backbone=resnet50_v2", "backbone.weights=none", "method=baseline"])
    with torch.device("meta"):
        head = sum(p.numel() for p in build_model(config, pretrained=False).head.parameters())
    assert head == 4_917_250
    assert f"{head:,}" in strategies.NOTE
    assert f"{head + 12_544:,}" in strategies.NOTE
    assert round(100 * 12_544 / (head + 12_544), 2) == 0.25


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("svff",), ("finetune=svff does not exist", "svf_bn", "fss strategies svf full")),
        (("svf", "--backbone", "resnet5"), ("backbone=resnet5 does not exist", "vgg16", "fss strategies")),
        (("svf", "--option", "finetune.stages=[9]"), ("finetune.stages=[9]", "0 (stem) to 4")),
    ],
)
def test_mistakes_are_answered(arguments: tuple[str, ...], texts: tuple[str, ...]) -> None:
    code, text = fss(*arguments)
    assert code == 2
    assert all(t in text for t in texts), text
    assert "Traceback" not in text
