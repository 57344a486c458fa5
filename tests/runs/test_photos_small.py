"""``experiment=photos_small`` on photographs in the layout of PASCAL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.fabricate import write_voc
from tests.programs import call

from fss.config.compose import composed

SMALL = (
    "experiment=photos_small", "backbone.weights=none", "backbone.width=8", "method.width=8", "workers=0",
    "data.epochs=1", "trainer.limit_train_batches=2", "data.test_episodes=8", "trainer.enable_progress_bar=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(home: Path) -> Path:
    """Every class is in eight images of either list."""
    return write_voc(home / "photos")


def test_the_preset_is_small_and_leaves_small_classes_out() -> None:
    config = composed(["experiment=photos_small"])
    assert (config["fold"], config["data"]["size"], config["data"]["min_test_images"]) == (2, 129, 10)
    assert (config["backbone"]["name"], config["selection"]) == ("efficientnet_lite0", "last")


def test_a_run_on_photographs(home: Path, photos: Path) -> None:
    code, text = call(home, "train.py", *SMALL, f"data.root={photos}", "data.min_test_images=8")
    assert code == 0, text
    (folder,) = home.glob("multirun/photos_small/*/")
    result = json.loads((folder / "result.json").read_text())
    assert list(result["scores"]["per_class"]) == ["diningtable", "dog", "horse", "motorbike", "person"]
    assert result["scores"]["left_out"] == {}
    assert (folder / "previews.png").is_file()


def test_photographs_too_few_for_the_preset(home: Path, photos: Path) -> None:
    code, text = call(home, "train.py", *SMALL, f"data.root={photos}")
    assert code == 2
    assert "data.min_test_images=10 leaves no novel class of fold 2" in " ".join(text.split())
