"""Equal options with other files behind them are other runs; the same files elsewhere are the same run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fss.config import content
from fss.config.base_learner import completed, differences
from fss.config.compose import composed
from fss.config.content import with_content, with_data_content
from fss.config.identity import identity
from fss.config.source import build_source
from fss.model.build import meta_model

Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FSS_CACHE", str(tmp_path / "cache"))
    content._content.cache.clear()


def config(root: Path, *options: str) -> dict[str, Any]:
    content._content.cache.clear()
    words = ["data=shapes", f"data.root={root}", "backbone=resnet18", "backbone.weights=none", *options]
    return completed(composed(words))


@pytest.fixture
def root(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "a"))


def _first(root: Path, folder: str) -> Path:
    return next(iter(sorted((root / folder).iterdir())))


def _longer_image(root: Path) -> None:
    path = root / "JPEGImages" / f"{_listed(root)}.jpg"
    path.write_bytes(path.read_bytes() + b"\0")


def _listed(root: Path) -> str:
    return (root / "ImageSets/FewShot/train.txt").read_text().split()[0]


def _repaired_mask(root: Path) -> None:
    path = root / "SegmentationClassAug" / f"{_listed(root)}.png"
    mask = np.array(Image.open(path))
    mask[0, 0] = 255 - mask[0, 0]
    Image.fromarray(mask).save(path)


def _edited_list(root: Path) -> None:
    path = root / "ImageSets/FewShot/train.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def _renamed_class(root: Path) -> None:
    path = root / "classes.txt"
    path.write_text(path.read_text().replace(path.read_text().split()[0], "other", 1))


@pytest.mark.parametrize("change", [_longer_image, _repaired_mask, _edited_list, _renamed_class])
def test_other_files_under_the_same_root_are_another_run(root: Path, change: Change) -> None:
    before = identity(config(root))
    assert identity(config(root)) == before
    change(root)
    assert identity(config(root)) != before


def test_another_root_with_other_images_is_another_run(root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root, tmp_path / "b"))
    assert identity(config(root)) == identity(config(other)), "a copy is the same data set"
    _repaired_mask(other)
    assert identity(config(root)) != identity(config(other))


def test_moving_a_data_set_or_its_lists_changes_nothing(root: Path, tmp_path: Path) -> None:
    listed = Path(shutil.copy(root / "ImageSets/FewShot/train.txt", tmp_path / "mine.txt"))
    before = identity(config(root, f"data.train_list={listed}"))
    moved = Path(shutil.move(root, tmp_path / "elsewhere"))
    assert identity(config(moved, f"data.train_list={listed}")) == before
    again = Path(shutil.move(listed, tmp_path / "yours.txt"))
    assert identity(config(moved, f"data.train_list={again}")) == before
    assert identity(config(moved)) == before, "the same list as the data set's own"
    again.write_text("\n".join(again.read_text().split()[3:]))
    assert identity(config(moved, f"data.train_list={again}")) != before


def test_weights_count_by_content(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"one")
    before = config(root, f"backbone.weights={file}")
    other = Path(shutil.copy(file, tmp_path / "v.pth"))
    assert identity(config(root, f"backbone.weights={other}")) == identity(before)
    file.write_bytes(b"two")
    assert identity(config(root, f"backbone.weights={file}")) != identity(before)
    assert identity(config(root, "backbone.weights=imagenet")) != identity(before)
    assert len(with_content(before)["backbone"]["weights_content"]) == 64


def test_hashes_are_no_arguments_of_what_is_built(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save({}, file)
    made = config(root, f"backbone.weights={file}", "backbone.width=8")
    assert made["backbone"]["weights_content"]
    model, _ = meta_model(made)
    assert len(list(model.parameters())) > 60
    assert build_source(made["data"]).ids("train")


def test_an_episode_list_counts_by_content(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "episodes.json"
    file.write_text("[]")
    before = identity(config(root, f"data.episodes={file}"))
    other = Path(shutil.copy(file, tmp_path / "other.json"))
    assert identity(config(root, f"data.episodes={other}")) == before
    file.write_text("[1]")
    assert identity(config(root, f"data.episodes={file}")) != before


def test_missing_files_have_no_hash_and_no_error_here(tmp_path: Path) -> None:
    made = config(tmp_path / "nowhere", f"backbone.weights={tmp_path / 'none.pth'}")
    assert "content" not in made["data"]
    assert "weights_content" not in made["backbone"]


def test_a_base_learner_of_other_data_of_the_same_name_does_not_fit(root: Path, tmp_path: Path) -> None:
    own = config(root)
    base = {**config(root), "method": {"name": "base_learner"}}
    assert differences(base, own) == []
    assert differences(base, config(root, "backbone.pool=ceil")) == ["backbone.pool=floor, not ceil"]
    del base["backbone"]["pool"]
    assert differences(base, own) == []
    _repaired_mask(root)
    assert [d for d in differences(base, config(root)) if d.startswith("data.content=")]


def test_a_test_looks_at_the_data_alone(root: Path) -> None:
    trained = config(root) | {"tested": {"checkpoint": "0" * 64}}
    trained["backbone"]["weights_content"] = "kept"
    assert with_data_content(trained)["backbone"]["weights_content"] == "kept"
    assert identity(with_data_content(trained)) != identity(config(root))
