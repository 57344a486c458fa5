import copy
import json
from functools import cache
from pathlib import Path

import pytest
from tests.programs import TINY
from typer.testing import CliRunner

from fss.cli.main import app
from fss.errors import FssError
from fss.runs.attempts import FAILURE
from fss.runs.claims import claimed
from fss.sweeps.estimates import Measured, epoch_of, kind_of, measured, seconds
from fss.sweeps.grid import planned
from fss.sweeps.progress import progress

OPTIONS = (*TINY, "logger=none")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@cache
def config(*more: str) -> dict:
    (run,) = planned([*OPTIONS, *more])
    return run.config


def known(step_s: float = 0.5, steps: int = 10, test_s: float = 0.1, *more: str) -> Measured:
    of = config(*more)
    return Measured(kind_of(of), epoch_of(of), step_s, steps, test_s)


def test_the_runs_of_a_product():
    runs = planned([*OPTIONS, "finetune=freeze,svf", "fold=0,1", "seed=1,2,3"])
    assert len(runs) == 12
    assert {(r.config["finetune"]["name"], r.config["fold"], r.config["seed"]) for r in runs} == {
        (f, k, s) for f in ("freeze", "svf") for k in (0, 1) for s in (1, 2, 3)
    }
    for run in runs[::5]:
        assert run.folder.name.startswith(
            f"baseline-resnet18-{run.config['finetune']['name']}-shapes{run.config['fold']}"
        )
        (alone,) = planned(list(run.words))
        assert alone == run, "composing rows once must not change a run"


def test_a_plan_warns_of_what_has_no_effect():
    """Once for all runs, in the words that the runs themselves would log."""
    asked = [*OPTIONS, "finetune=freeze,svf", "fold=0,1", "recipe.backbone_lr_factor=3", "data.base.epochs=4"]
    done = CliRunner().invoke(app, ["sweep", "plan", *asked])
    assert done.exit_code == 0, done.output
    warnings = [line for line in done.stderr.splitlines() if line.startswith("Warning: ")]
    assert [w.partition(" has no effect: ")[0] for w in warnings] == [
        "Warning: recipe.backbone_lr_factor=3", "Warning: data.base.epochs=4",
    ]  # fmt: skip
    assert "finetune=freeze trains no value of the backbone" in warnings[0]
    assert "4 runs, 0 of them finished" in done.stdout
    assert "Warning" not in done.stdout
    effective = CliRunner().invoke(app, ["sweep", "plan", *OPTIONS, "finetune=svf", "recipe.backbone_lr_factor=3"])
    assert effective.stderr == ""


def test_the_runs_of_rows():
    runs = planned(["experiment=table05", "fold=1,3", "+row=t05r01,t05r06"])
    assert [(r.config["finetune"]["name"], r.config["fold"]) for r in runs] == [
        ("freeze", 1), ("freeze", 3), ("svf", 1), ("svf", 3),
    ]  # fmt: skip


def test_wrong_options():
    with pytest.raises(FssError, match="fold=7"):
        planned([*OPTIONS, "fold=0,7"])
    done = CliRunner().invoke(app, ["sweep", "status", "finetun=svf"])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["sweep", "status", "experiment=table99"])
    assert done.exit_code == 2


def test_states(nowhere: Path):
    folder, of = nowhere / "run", config()
    assert progress(folder, of).state == "missing"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    assert progress(folder, of).state == "interrupted"
    (folder / FAILURE).write_text(json.dumps({"error": "out of memory"}))
    assert progress(folder, of).state == "failed"
    assert progress(folder, of).text == "out of memory"
    with claimed(folder):
        assert progress(folder, of).state == "running"
    (folder / "result.json").write_text("{")
    assert progress(folder, of).state == "failed", "a damaged result is no result"


def test_seconds_by_hand():
    of = config("data.epochs=3", "data.test_episodes=20", "selection=novel")
    # 3 epochs of 10 steps, validation after each and one test, of 20 episodes each
    assert seconds(of, [known()]) == pytest.approx(3 * 10 * 0.5 + 4 * 20 * 0.1)
    of = config("data.epochs=3", "data.test_episodes=20", "selection=last")
    assert seconds(of, [known()]) == pytest.approx(3 * 10 * 0.5 + 1 * 20 * 0.1)
    of = config("data.epochs=3", "data.test_episodes=20", "selection=last", "trainer.limit_train_batches=4")
    assert seconds(of, [known()]) == pytest.approx(3 * 4 * 0.5 + 1 * 20 * 0.1)


def test_seconds_of_the_right_kind():
    of = config("fold=2", "data.epochs=1", "selection=last", "data.test_episodes=1")
    assert seconds(of, []) is None
    assert seconds(of, [known(1.0, 10, 0.0, more) for more in ("finetune=full", "shot=5", "data.size=97")]) is None
    here, there = known(1.0, 10, 0.0, "fold=2"), known(1.0, 90, 0.0, "fold=1")
    assert seconds(of, [there]) == 90
    assert seconds(of, [here, there]) == 10, "the same fold has epochs of the same length"
    assert seconds(of, [known(1.0, 10, 0.0, "seed=7", "data.epochs=9", "finetune.stages=[2,3,4]")]) == 10


def test_measured_reads_what_is_whole(nowhere: Path):
    cost = {"step_ms": 500.0, "steps_per_epoch": 10, "test_episode_ms": 100.0}
    for index, change in enumerate(({}, {"step_ms": None}, {"steps_per_epoch": None})):
        folder = nowhere / str(index)
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"cost": cost | change, "config": config()}))
    (nowhere / "result.json").write_text("[")
    assert measured(nowhere) == [known()]


def test_the_command_shows_grid_and_rest(nowhere: Path):
    asked = [*OPTIONS, "finetune=freeze,svf", "fold=0,1"]
    first, *_ = planned(asked)
    first.folder.mkdir(parents=True)
    (first.folder / FAILURE).write_text(json.dumps({"error": "out of memory"}))
    done = CliRunner().invoke(app, ["sweep", "status", *asked])
    assert done.exit_code == 0, done.output
    assert "4 runs: 1 failed, 3 missing" in done.output
    assert "out of memory" in done.output
    assert "4 of 4 runs are of kinds that were never measured" in done.output
    cost = {"step_ms": 36000.0, "steps_per_epoch": 10, "test_episode_ms": 0.0}
    content = {"cost": cost, "config": copy.deepcopy(first.config)}
    (nowhere / "multirun" / "m").mkdir()
    (nowhere / "multirun" / "m" / "result.json").write_text(json.dumps(content))
    done = CliRunner().invoke(app, ["sweep", "plan", *asked, "data.epochs=50"])
    assert "2 x finetune=freeze, 1 shot: 10.0 h" in done.output  # two runs of 50 x 10 x 36 s
    assert "2 x finetune=svf, 1 shot: no run of this kind was measured" in done.output
