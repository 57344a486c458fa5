"""Tests never take for new what their checkpoint was trained on, and say so where they were told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.fabricate import write_voc
from tests.programs import TINY, call

from fss.data.sources.folds import COCO_CLASSES, coco_fold

SHORT = (*TINY, "logger=none", "data.epochs=1", "trainer.limit_train_batches=2", "data.test_episodes=8", "previews=0")
EVAL = ("trainer=cpu", "trainer.enable_progress_bar=false", "test_episodes=8", "previews=0")


@pytest.fixture(scope="module")
def checkpoint(home: Path) -> Path:
    """A checkpoint of fold 0 of the drawn data set."""
    code, text = call(home, "train.py", *SHORT, "group=seen")
    assert code == 0, text
    (path,) = home.glob("multirun/seen/*/checkpoints/last.ckpt")
    return path


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_a_checkpoint_says_on_which_classes_it_was_trained(home: Path, checkpoint: Path) -> None:
    names = (home / "data/shapes/classes.txt").read_text().split()
    assert torch.load(checkpoint, weights_only=True)["fss"]["trained_on"] == names[5:]


def test_another_fold_of_the_same_data(home: Path, checkpoint: Path) -> None:
    code, text = call(home, "eval.py", f"ckpt={checkpoint}", *EVAL, "fold=1", "out=refused")
    assert code == 2
    assert "none is left" in " ".join(text.split())
    assert not (home / "refused").exists()
    code, text = call(home, "eval.py", f"ckpt={checkpoint}", *EVAL, "fold=1", "seen_classes=drop", "out=refused")
    assert code == 2, text
    code, text = call(home, "eval.py", f"ckpt={checkpoint}", *EVAL, "fold=1", "seen_classes=keep", "out=kept")
    assert code == 0, text
    found = result(home / "kept")
    names = (home / "data/shapes/classes.txt").read_text().split()[5:10]
    assert list(found["scores"]["per_class"]) == names
    (note,) = found["notes"]
    assert note.startswith(f"seen_classes=keep: the checkpoint was trained on {', '.join(names)} (by name")
    assert f"trained on {names[0]}" in found["key"]["test"]


def test_classes_of_another_data_set_are_known_by_their_names(home: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint of COCO's fold 0 has seen horse and motorcycle of PASCAL's fold 2."""
    content = torch.load(checkpoint, weights_only=True)
    content["fss"]["trained_on"] = [COCO_CLASSES[i] for i in coco_fold(0).base]
    of_coco = tmp_path / "coco.ckpt"
    torch.save(content, of_coco)
    root = write_voc(tmp_path / "voc")
    options = (f"ckpt={of_coco}", *EVAL, "data=pascal", "data.size=65", f"root={root}", "fold=2", f"out={tmp_path}/out")
    code, text = call(home, "eval.py", *options)
    told = " ".join(text.split())
    assert code == 2
    assert "trained on horse, motorbike" in told
    assert "test diningtable, dog, person alone with seen_classes=drop" in told
    code, text = call(home, "eval.py", *options, "seen_classes=drop")
    assert code == 0, text
    found = result(tmp_path / "out")
    assert list(found["scores"]["per_class"]) == ["diningtable", "dog", "person"]
    assert all(found["scores"]["class_episodes"].values())
    assert sum(found["scores"]["class_episodes"].values()) == 8
    assert "seen_classes=drop" in found["notes"][0]
    assert found["key"]["test"].endswith("without horse, motorbike")


def test_images_that_were_trained_on(home: Path, checkpoint: Path) -> None:
    lists = home / "data/shapes/ImageSets/FewShot"
    mixed = home / "mixed.txt"
    mixed.write_text((lists / "train.txt").read_text() + (lists / "val.txt").read_text())
    count = len((lists / "val.txt").read_text().split())
    options = (*SHORT, f"data.train_list={mixed}", "group=leak")
    code, text = call(home, "train.py", *options)
    assert code == 2
    assert f"{count} of {count} images of the test's list" in " ".join(text.split())
    assert not list(home.glob("multirun/leak/*/*"))
    code, text = call(home, "train.py", *options, "leaks=allow")
    assert code == 0, text
    (folder,) = home.glob("multirun/leak/*")
    found = result(folder)
    assert found["notes"][0].startswith(f"leaks=allow: {count} of {count} images")
    assert found["data"]["test_images_trained_on"] == count
    code, text = call(home, "eval.py", f"ckpt={folder / 'checkpoints/last.ckpt'}", *EVAL, "out=leaked")
    assert code == 2, text
    assert "leaks=allow" in text
    swapped = ("data=shapes", "data.size=65", f"data.val_list={lists / 'train.txt'}", "out=swapped")
    code, text = call(home, "eval.py", f"ckpt={checkpoint}", *EVAL, *swapped)
    assert code == 2, "the test's list is the training's"
    code, text = call(home, "eval.py", f"ckpt={checkpoint}", *EVAL, *swapped, "leaks=allow")
    assert code == 0, text
    assert result(home / "swapped")["notes"][0].startswith("leaks=allow")
