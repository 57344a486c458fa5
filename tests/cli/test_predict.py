"""``fss predict`` from end to end, with the checkpoint of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.programs import TINY, call

from fss.predictor import Predictor


@pytest.fixture(scope="module")
def ready(home: Path) -> Path:
    """A working directory with a checkpoint and images."""
    code, text = call(home, "train.py", *TINY, "logger=none", "debug=one_batch")
    assert code == 0, text
    (run,) = (home / "multirun/debug").iterdir()
    (run / "checkpoints/last.ckpt").rename(home / "model.ckpt")
    canvas = np.zeros((50, 70, 3), np.uint8)
    canvas[10:30, 20:40] = (200, 40, 40)
    for name in ("one.jpg", "two.jpg"):
        Image.fromarray(canvas).save(home / name)
    Image.fromarray(canvas[..., 0] > 100).save(home / "mask.png")
    Image.fromarray(np.tile(canvas, (3, 2, 1))).save(home / "photo.jpg")
    return home


def test_overlay_mask_and_probability(ready: Path) -> None:
    words = ("--support", "one.jpg", "mask.png", "--support", "two.jpg", "mask.png", "--query", "photo.jpg")
    code, text = call(ready, "fss", "predict", "--ckpt", "model.ckpt", *words, "--out", "new/found.png")
    assert code == 0, text
    assert "The object covers" in text
    written = {p.name: np.array(Image.open(p)) for p in (ready / "new").iterdir()}
    assert written.keys() == {"found.png", "found-mask.png", "found-probability.png"}
    assert written["found.png"].shape == (150, 140, 3)
    canvas = np.array(Image.open(ready / "one.jpg"))
    support = (canvas, (np.array(Image.open(ready / "mask.png"))).astype(np.uint8))
    expected = Predictor.load(ready / "model.ckpt")(np.array(Image.open(ready / "photo.jpg")), [support, support])
    assert (written["found-mask.png"] == 255 * expected.mask).all()
    assert np.abs(written["found-probability.png"] / 255 - expected.probability).max() < 0.01
    assert expected.probability.std() > 0, "the model says something about the image"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--support", "one.jpg", "--query", "photo.jpg"), "names no mask"),
        (("--support", "one.jpg", "none.png", "--query", "photo.jpg"), "There is no mask none.png"),
        (("--support", "one.jpg", "photo.jpg", "--query", "photo.jpg"), "is a JPEG file"),
        (("--support", "one.jpg", "mask.png", "--query", "model.ckpt"), "damaged or no image"),
    ],
)
def test_wrong_words(ready: Path, words: tuple[str, ...], message: str) -> None:
    code, text = call(ready, "fss", "predict", "--ckpt", "model.ckpt", *words, "--out", "bad/found.png")
    assert code == 2, text
    assert message in text
    assert "Traceback" not in text
    assert not (ready / "bad").exists()
