"""``recording=on``: options, and that neither the weights nor the name of a run depend on it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from tests.programs import TINY, call

from fss.config.checks import check
from fss.config.compose import CONF, plain, prepare_hydra
from fss.config.identity import identity
from fss.config.recording import records
from fss.errors import FssError

EPOCHS = 2
OPTIONS = (
    *TINY, "data.size=33", f"data.epochs={EPOCHS}", "data.test_episodes=10", "data.val_episodes=6",
    "recipe.batch_size=2", "logger=csv", "trainer.limit_train_batches=4", "finetune=svf", "selection=last",
    "recipe.optimizer.lr=0.2", "recipe.backbone_lr_factor=1.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def composed() -> Iterator[Any]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        yield lambda *words: plain(compose("config", overrides=list(words)))


def test_off_by_default_and_no_part_of_the_identity(composed: Any) -> None:
    off, on = composed(), composed("recording=on", "recording.every=3")
    assert (records(off), records(on)) == (False, True)
    assert identity(off) == identity(on)
    older = {name: value for name, value in off.items() if name != "recording"}
    check(older)
    assert (records(older), identity(older)) == (False, identity(off)), "runs from before the option keep their names"
    assert not records(composed("recording=on", "method=base_learner"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("recording.enabled=maybe",), "recording.enabled=maybe is not allowed: give true or false"),
        (("recording.every=0",), "recording.every=0 is not allowed: give a whole number from 1 up"),
        (("recording.every=2.5",), "recording.every=2.5"),
        (("recording=on", "selection=base"), "Give selection=novel or selection=last"),
    ],
)
def test_mistakes(composed: Any, words: tuple[str, ...], text: str) -> None:
    with pytest.raises(FssError) as caught:
        check(composed(*words))
    assert text in str(caught.value)
    check(composed("selection=base"))


def test_a_run_that_records_is_the_same_run(home: Path) -> None:
    """Without recording, selection=last validates nothing: the validation must not leave a trace either."""
    outcome = {}
    for group, words in (("plain", ()), ("recorded", ("recording=on", "recording.every=1"))):
        code, text = call(home, "train.py", *OPTIONS, *words, f"group={group}")
        assert code == 0, text
        (folder,) = (home / "multirun" / group).iterdir()
        last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        outcome[group] = (folder, last["state_dict"], json.loads((folder / "result.json").read_text()))
    plain_run, recorded = outcome["plain"], outcome["recorded"]
    assert plain_run[0].name == recorded[0].name
    for name, value in plain_run[1].items():
        assert torch.equal(value, recorded[1][name]), name
    for part in ("identity", "scores", "episodes", "selection"):
        assert plain_run[2][part] == recorded[2][part], part
    assert not (plain_run[0] / "recording").exists()
    with open(recorded[0] / "recording" / "curves.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(epoch + 1) for epoch in range(EPOCHS)]
    assert all(row["train_miou"] and row["novel_miou"] for row in rows), "novel classes are validated for the curve"
    about = json.loads((recorded[0] / "recording" / "about.json").read_text())
    key = recorded[2]["key"]
    assert about["key"].items() <= key.items()
    assert (about["finetune"]["name"], about["epochs"]) == ("svf", EPOCHS)
    code, text = call(home, "fss", "figure", "6", "heatmap", "--runs", str(recorded[0]), "--out", str(home / "drawn"))
    assert code == 0, text
    assert (home / "drawn" / "heatmap.pdf").is_file()
