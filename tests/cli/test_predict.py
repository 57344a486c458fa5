"""``fss predict`` from end to end, with the checkpoint of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.processes import call

from fss.data.shapes import write_shapes
from fss.prediction import Predictor

OPTIONS = (
    "data=shapes", "backbone=resnet18", "backbone.width=8", "backbone.weights=none", "method.width=8", "data.size=65",
    "logger=none", "workers=0", "debug=one_batch", "trainer=cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    write_shapes(folder / "data/shapes", 0, train=60, val=40, pretrain_per_class=1)
    code, text = call(folder, "train.py", *OPTIONS)
    assert code == 0, text
    (run,) = (folder / "multirun/debug").iterdir()
    (run / "checkpoints/last.ckpt").rename(folder / "model.ckpt")
    canvas = np.zeros((50, 70, 3), np.uint8)
    canvas[10:30, 20:40] = (200, 40, 40)
    for name in ("one.jpg", "two.jpg"):
        Image.fromarray(canvas).save(folder / name)
    Image.fromarray(canvas[..., 0] > 100).save(folder / "mask.png")
    Image.fromarray(np.tile(canvas, (3, 2, 1))).save(folder / "photo.jpg")
    return folder


def test_overlay_mask_and_probability(home: Path) -> None:
    words = ("--support", "one.jpg", "mask.png", "--support", "two.jpg", "mask.png", "--query", "photo.jpg")
    code, text = call(home, "fss", "predict", "--ckpt", "model.ckpt", *words, "--out", "new/found.png")
    assert code == 0, text
    assert "The object covers" in text
    written = {p.name: np.array(Image.open(p)) for p in (home / "new").iterdir()}
    assert written.keys() == {"found.png", "found-mask.png", "found-probability.png"}
    assert written["found.png"].shape == (150, 140, 3)
    canvas = np.array(Image.open(home / "one.jpg"))
    support = (canvas, (np.array(Image.open(home / "mask.png"))).astype(np.uint8))
    expected = Predictor.load(home / "model.ckpt")(np.array(Image.open(home / "photo.jpg")), [support, support])
    assert (written["found-mask.png"] == 255 * expected.mask).all()
    assert np.abs(written["found-probability.png"] / 255 - expected.probability).max() < 0.01
    assert expected.probability.std() > 0, "the model says something about the picture"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--support", "one.jpg", "--query", "photo.jpg"), "names no mask"),
        (("--support", "one.jpg", "none.png", "--query", "photo.jpg"), "There is no picture none.png"),
        (("--support", "one.jpg", "photo.jpg", "--query", "photo.jpg"), "has colours"),
        (("--support", "one.jpg", "mask.png", "--query", "model.ckpt"), "damaged or no picture"),
    ],
)
def test_wrong_words(home: Path, words: tuple[str, ...], message: str) -> None:
    code, text = call(home, "fss", "predict", "--ckpt", "model.ckpt", *words, "--out", "bad/found.png")
    assert code == 2, text
    assert message in text
    assert "Traceback" not in text
    assert not (home / "bad").exists()
