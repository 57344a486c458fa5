"""Classes with few test images: out of the mean, named in the result, in the table and in every test of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.programs import TINY, call

SHORT = (*TINY, "logger=none", "data.epochs=1", "trainer.limit_train_batches=2", "data.test_episodes=40", "previews=0")
EVAL = ("trainer=cpu", "trainer.enable_progress_bar=false", "previews=0")


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def counts(home: Path) -> dict[str, int]:
    """Images of every novel class of fold 0, as ``fss data index`` lists them."""
    code, text = call(home, "fss", "data", "index", "shapes", "--root", "data/shapes", "--fold", "0", "--split", "val",
                      "--out", "index.json")  # fmt: skip
    assert code == 0, text
    names = (home / "data/shapes/classes.txt").read_text().split()
    per_class = json.loads((home / "index.json").read_text())["per_class"]
    return {names[int(c) - 1]: len(images) for c, images in per_class.items()}


def test_means_leave_classes_out_and_say_so(home: Path) -> None:
    found = counts(home)
    least = sorted(found.values())[2]
    few = {name: count for name, count in found.items() if count < least}
    assert 0 < len(few) < len(found), found
    code, text = call(home, "train.py", *SHORT, "group=few", f"data.min_test_images={least}")
    assert code == 0, text
    (folder,) = home.glob("multirun/few/*/")
    scores = result(folder)["scores"]
    assert scores["left_out"] == few
    kept = [value for name, value in scores["per_class"].items() if name not in few]
    assert scores["miou"] == pytest.approx(sum(kept) / len(kept))
    assert set(scores["per_class"]) == set(found)
    listed = ", ".join(f"{name} ({count})" for name, count in few.items())
    assert result(folder)["notes"] == [
        f"data.min_test_images={least}: left out of the mean IoU over classes of the test, for too few images: {listed}"
    ]
    assert f"left out of the mean of shapes fold 0, with fewer than {least} test images: {listed}" in _words(text)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    for name, options in {"as trained": (), "asked": ("seed=5", f"min_test_images={max(found.values())}")}.items():
        code, text = call(home, "eval.py", f"ckpt={checkpoint}", *EVAL, *options, f"out={name.replace(' ', '_')}")
        assert code == 0, text
    assert result(home / "as_trained")["scores"]["left_out"] == few
    largest = {name for name, count in found.items() if count == max(found.values())}
    scores = result(home / "asked")["scores"]
    assert scores["left_out"].keys() == found.keys() - largest
    assert scores["miou"] == pytest.approx(sum(scores["per_class"][n] for n in largest) / len(largest))


def test_no_class_left_ends_before_training(home: Path) -> None:
    code, text = call(home, "train.py", *SHORT, "group=none", "data.min_test_images=9999")
    assert code == 2
    assert "data.min_test_images=9999 leaves no novel class of fold 0" in _words(text)
    assert "step" not in text


def _words(text: str) -> str:
    return " ".join(text.split())
