"""Two results never share a folder, and nothing that was asked for is skipped in silence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.programs import TINY, call

SHORT = (
    *TINY, "logger=none", "previews=0", "data.epochs=2", "data.test_episodes=6", "data.val_episodes=4",
    "trainer.limit_train_batches=2", "recipe.batch_size=2", "finetune=freeze", "group=apart",
)  # fmt: skip
EVAL = ("trainer=cpu", "trainer.enable_progress_bar=false", "workers=0", "previews=0", "test_episodes=6")


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    code, text = call(home, "train.py", *SHORT)
    assert code == 0, text
    (folder,) = (home / "multirun/apart").iterdir()
    return folder


def results(folder: Path) -> dict[str, str]:
    """Return the identity of every test beside a run's checkpoints."""
    return {p.parent.name: json.loads(p.read_text())["identity"] for p in folder.glob("eval-*/result.json")}


def test_best_and_last_are_two_tests(home: Path, trained: Path) -> None:
    for name in ("best", "last"):
        code, text = call(home, "eval.py", f"ckpt={trained}/checkpoints/{name}.ckpt", *EVAL)
        assert code == 0, text
    found = results(trained)
    assert len(found) == len(set(found.values())) == 2
    code, _ = call(home, "eval.py", f"ckpt={trained}/checkpoints/last.ckpt", *EVAL)
    assert code == 0
    assert results(trained) == found, "the same test again is the same folder"


def test_another_data_set_is_another_test(home: Path, trained: Path) -> None:
    other = Path(shutil.copytree((home / "data/shapes").resolve(), home / "data/other"))
    before = results(trained)
    words = (f"ckpt={trained}/checkpoints/best.ckpt", f"root={other}", *EVAL)
    assert call(home, "eval.py", *words)[0] == 0
    if not before:
        before = results(trained)
    same = results(trained)
    ids = (other / "ImageSets/FewShot/val.txt").read_text().split()
    for i in ids:
        path = other / "SegmentationClassAug" / f"{i}.png"
        mask = np.array(Image.open(path))
        mask[:2, :2] = 255
        Image.fromarray(mask).save(path)
    code, text = call(home, "eval.py", *words)
    assert code == 0, text
    assert len(results(trained)) == len(same) + 1


def test_out_is_never_written_over_by_another_test(home: Path, trained: Path) -> None:
    out = home / "out"
    assert call(home, "eval.py", f"ckpt={trained}/checkpoints/best.ckpt", f"out={out}", *EVAL)[0] == 0
    before = (out / "result.json").read_bytes()
    code, text = call(home, "eval.py", f"ckpt={trained}/checkpoints/last.ckpt", f"out={out}", *EVAL)
    assert code == 2, text
    assert "holds the result of another run or test" in text
    assert (out / "result.json").read_bytes() == before
    code, text = call(home, "eval.py", f"ckpt={trained}/checkpoints/last.ckpt", f"out={trained}", *EVAL)
    assert code == 2, "the run's own result"


def test_recording_a_finished_run_is_refused_with_the_remedy(home: Path, trained: Path) -> None:
    before = (trained / "result.json").read_bytes()
    code, text = call(home, "train.py", *SHORT, "recording=on")
    assert code == 2, text
    assert "was not recorded" in text
    assert "overwrite=true" in text
    assert (trained / "result.json").read_bytes() == before


def test_repaired_masks_are_another_run(home: Path, trained: Path) -> None:
    """The same command after the masks changed in place used to answer "Already finished"."""
    code, text = call(home, "train.py", *SHORT)
    assert code == 0
    assert "Already finished" in text
    own = Path(shutil.copytree((home / "data/shapes").resolve(), home / "data/own"))
    code, text = call(home, "train.py", *SHORT, f"data.root={own}")
    assert "Already finished" in text, "a copy is the same data set"
    first = (own / "ImageSets/FewShot/train.txt").read_text().split()[0]
    path = own / "SegmentationClassAug" / f"{first}.png"
    mask = np.array(Image.open(path))
    mask[:3, :3] = 255
    Image.fromarray(mask).save(path)
    code, text = call(home, "train.py", *SHORT, f"data.root={own}")
    assert code == 0, text
    assert "Already finished" not in text
    assert len(list((home / "multirun/apart").iterdir())) == 2
