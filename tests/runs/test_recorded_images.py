"""Options of what is recorded as images, and the way from a training to its figures."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from tests.programs import call

from fss.config.checks import check
from fss.config.compose import CONF, plain, prepare_hydra
from fss.errors import FssError


@pytest.fixture(scope="module")
def composed() -> Iterator[Any]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        yield lambda *words: plain(compose("config", overrides=list(words)))


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("recording.episodes=-1", "recording.episodes=-1 is not allowed: give a whole number from 0 up"),
        ("recording.maps=1.5", "recording.maps=1.5"),
        ("recording.gallery=many", "recording.gallery=many"),
        ("recording.layers=layer3.5.conv2", "give a list of names, e.g. [layer3.5.conv2]"),
        ("recording.layers=[3]", "recording.layers=[3] is not allowed"),
    ],
)
def test_mistakes(word: str, text: str, composed: Any) -> None:
    with pytest.raises(FssError) as caught:
        check(composed(word))
    assert text in str(caught.value)
    check(composed("recording.layers=[layer3.5.conv2]", "recording.episodes=0"))


@pytest.mark.slow
def test_from_a_training_to_its_figures(home: Path) -> None:
    words = ("recording.maps=3", "recording.episodes=6", "recording.gallery=1", "group=images")
    code, text = call(home, "train.py", "experiment=figure06", "+size=smoke", *words)
    assert code == 0, text
    (run,) = (home / "multirun/images").iterdir()
    stored = np.load(run / "recording/components.npz")
    assert stored["shown"].tolist() == ["layer3.5.conv2", "layer3.5.conv3"]
    assert len(stored["layers"]) == 42
    assert (len(stored["image"]), len(stored["episode"])) == (3, 6)
    names = ("4", "5", "foreground", "gallery", "gap")
    code, text = call(home, "fss", "figure", *names, "--runs", "multirun/images", "--out", "images")
    assert code == 0, text
    for stem in ("figure04", "figure05", "foreground", "gallery", "gap"):
        assert {path.suffix for path in (home / "images").glob(f"{stem}.*")} == {".pdf", ".png", ".csv", ".txt"}
    with open(home / "images/foreground.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(stored[f"before:{name}"]) for name in stored["layers"])
