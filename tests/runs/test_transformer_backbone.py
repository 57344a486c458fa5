"""A user's own plain transformer through the programs: its images, sides and support view need no option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.programs import call

import fss

YAML = """# A plain transformer
name: tokens
_target_: tests.model.tokens.Tokens
width: 8 # channels
depth: 1 # blocks per stage
weights: none
"""
SHORT = (
    "hydra.searchpath=[file://own/conf]", "data=shapes", "backbone=tokens", "method.width=8", "logger=none",
    "selection=last", "workers=0", "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.limit_train_batches=2",
    "recipe.batch_size=2", "data.epochs=1", "data.base.epochs=1", "data.test_episodes=6",
)  # fmt: skip


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def run_of(home: Path, group: str) -> Path:
    (path,) = home.glob(f"multirun/{group}/*/result.json")
    return path.parent


@pytest.fixture(scope="module")
def baseline(home: Path) -> Path:
    (home / "own/conf/backbone").mkdir(parents=True)
    (home / "own/conf/backbone/tokens.yaml").write_text(YAML)
    code, text = call(home, "train.py", *SHORT, "method=baseline", "group=baseline")
    assert code == 0, text
    return run_of(home, "baseline")


def test_sides_and_view_follow_the_class_and_the_result_says_so(baseline: Path) -> None:
    found = result(baseline)
    assert (found["config"]["data"]["size"], found["config"]["method"]["support_view"]) == (126, "masked_image")
    (note,) = [n for n in found["notes"] if "support_view" in n]
    assert note.startswith("method.support_view=masked_image: support images are masked; the releases")


def test_pictures_have_the_colours_of_the_images(baseline: Path) -> None:
    """Padding is black in the images; with another mean than the backbone's it would be grey."""
    with np.load(baseline / "previews.npz") as stored:
        query, truth = stored["query"], stored["truth"]
    assert query.shape == (6, 126, 126, 3)
    padding = (truth == 255).all(axis=2)
    assert padding.any()
    assert not query[padding].any()
    assert query.max() > 200


def test_a_checkpoint_is_tested_and_loaded(home: Path, baseline: Path) -> None:
    checkpoint = baseline / "checkpoints/last.ckpt"
    code, text = call(
        home, "eval.py", f"ckpt={checkpoint}", "data=shapes", "test_episodes=6", "previews=0", "trainer=cpu",
        "out=again", "trusted=[tests]",
    )  # fmt: skip
    assert code == 0, text
    again, trained = result(home / "again"), result(baseline)
    assert again["config"]["data"]["size"] == 126
    assert again["scores"]["miou"] == pytest.approx(trained["scores"]["miou"], abs=1e-4)
    assert any("support_view" in n for n in again["notes"])
    predictor = fss.Predictor.load(checkpoint, trusted=["tests"])
    assert (predictor.size, predictor.model.input.mean) == (126, (0.5, 0.4, 0.3))
    code, text = call(
        home, "eval.py", f"ckpt={checkpoint}", "data=shapes", "data.size=129", "trainer=cpu", "trusted=[tests]"
    )
    assert code == 2
    assert "sides of backbone=tokens are multiples of 7. Give one of the nearest: 126 or 133" in " ".join(text.split())


def test_bam_trains_a_base_learner_on_the_same_images(home: Path, baseline: Path) -> None:
    code, text = call(home, "train.py", *SHORT, "method=bam", "group=bam", "finetune=freeze")
    assert code == 0, text
    by_method = {result(p.parent)["key"]["method"]: result(p.parent) for p in home.glob("multirun/bam/*/result.json")}
    assert by_method.keys() == {"bam", "base_learner"}
    assert {r["config"]["data"]["size"] for r in by_method.values()} == {126}


def test_the_view_that_is_impossible_is_refused_before_anything_is_read(home: Path, baseline: Path) -> None:
    code, text = call(home, "train.py", *SHORT, "data.root=nowhere", "method.support_view=masked_before_stage4")
    assert code == 2
    assert "type method.support_view=masked_image" in " ".join(text.split())
