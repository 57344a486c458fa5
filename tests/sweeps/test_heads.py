"""``experiment=heads``: every head of conf/method, like with like, and all of them train, validate and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.programs import Program, call

from fss.config.compose import composed, heads
from fss.results import Result, find_results
from fss.sweeps.grid import Planned, planned

HEADS, STRATEGIES, SHOTS = heads(), ("freeze", "svf"), (1, 5)
OWN = ("name", "optimizers", "untrained")
"""What heads may ask of a recipe."""
SMALL = (
    "experiment=heads", "+size=smoke", "fold=0", "selection=novel", "data.small_classes=drop",
    "data.test_episodes=4", "trainer.limit_train_batches=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> list[Planned]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nowhere"))
        return planned(["experiment=heads"])


def test_every_head_on_every_fold_frozen_and_with_svf(plan: list[Planned]) -> None:
    assert "base_learner" not in HEADS
    assert set(HEADS) >= {"bam", "baseline", "cyctr", "dcama", "hsnet", "pfenet"}
    cells = [(p.config["method"]["name"], p.config["finetune"]["name"], p.config["fold"]) for p in plan]
    assert sorted(cells) == [(head, strategy, fold) for head in HEADS for strategy in STRATEGIES for fold in range(4)]


def test_nothing_but_head_and_strategy_differs(plan: list[Planned]) -> None:
    def surroundings(config: dict[str, Any]) -> dict[str, Any]:
        recipe = {k: v for k, v in config["recipe"].items() if k not in OWN}
        backbone = {k: v for k, v in config["backbone"].items() if k not in ("dilation", "sizes")}
        same = {k: config[k] for k in ("protocol", "trainer", "selection", "seed", "test_seed", "shot")}
        return {**same, "data": config["data"], "recipe": recipe, "backbone": backbone}

    first = surroundings(plan[0].config)
    assert first["protocol"]["name"] == "suite"
    assert all(surroundings(p.config) == first for p in plan)


@pytest.mark.parametrize("preset", ["experiment=demo", "experiment=photos_small", "+size=smoke"])
def test_presets_of_small_networks_fit_every_head(preset: str) -> None:
    """What they set below ``method`` is an option of the head, in its own file."""
    for head in HEADS:
        small, own = composed([f"method={head}", preset]), composed([f"method={head}"])
        assert small["method"].keys() == own["method"].keys(), head


Runs = dict[tuple[str, str, int], Result]
"""By head, strategy and number of supports."""


def sweep(home: Path, *options: str) -> Runs:
    """Run on the real structure of a ResNet-50, narrow; what has run before is not run again."""
    running = Program(home, "train.py", "-m", *SMALL, *options)
    assert running.wait(600) == 0, running.text()
    found = [run for run in find_results(home / "multirun/smoke") if run.key.method != "base_learner"]
    return {(run.key.method, run.key.finetune, run.key.shot): run for run in found}


def trained_validated_and_tested(run: Result) -> None:
    assert run.episodes.count == 4
    assert run.cost.train_seconds
    assert (run.selection.rule, run.files["best"]) == ("novel", "checkpoints/best.ckpt"), "validated"
    assert run.selection.validation_miou == pytest.approx(run.scores.miou), "on the same episodes"
    assert bool(run.parameters.backbone_trainable) is (run.key.finetune == "svf")
    assert run.parameters.head_trainable
    assert (run.config["protocol"]["name"], run.config["shot"]) == ("suite", run.key.shot)


def test_every_head_runs_and_the_report_is_made_of_the_results(home: Path) -> None:
    runs = sweep(home, "+row=svf", "shot=1")
    assert runs.keys() == {(head, "svf", 1) for head in HEADS}
    for run in runs.values():
        trained_validated_and_tested(run)
    code, text = call(home, "fss", "report", "multirun/smoke", "--episodes", "0")
    assert code == 0, text
    written = (home / "multirun/smoke/heads.md").read_text()
    lines = [line for line in written.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert table[0] == ["head", "svf"]
    assert table[2:] == [[head, f"{runs[head, 'svf', 1].scores.miou:.2f}"] for head in HEADS]
    everywhere = runs[HEADS[0], "svf", 1].scores.miou_all_foreground
    assert everywhere is not None
    assert f"Foreground everywhere scores {everywhere:.2f}." in written
    assert "WARNING" not in written


@pytest.mark.slow
def test_every_head_frozen_and_with_svf_with_one_and_five_supports(home: Path) -> None:
    runs = sweep(home, f"shot={','.join(map(str, SHOTS))}")
    assert runs.keys() == {(head, strategy, shot) for head in HEADS for strategy in STRATEGIES for shot in SHOTS}
    for run in runs.values():
        trained_validated_and_tested(run)
