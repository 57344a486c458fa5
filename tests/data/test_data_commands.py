import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fss.cli.data import app
from fss.data.episodes.lists import EpisodeList, record
from fss.data.episodes.options import EpisodeOptions, IndexOptions
from fss.data.episodes.streams import EpisodeStreams


def _run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_index_of_the_real_masks(pascal_dir, pascal_masks, tmp_path):
    out = tmp_path / "f.json"
    common = ("--masks", pascal_masks, "--ids", pascal_dir / "train.txt", "--out", out)
    result = _run("index", "pascal", "--fold", 0, "--split", "train", "--novel-images", "keep", *common)
    assert result.exit_code == 0, result.output
    got = json.loads(out.read_text())
    expected = json.loads((pascal_dir / "expected_fold0_train_keep_novel.json").read_text())
    assert (got["images"], got["per_class"]) == (expected["images"], expected["per_class"])
    assert (got["fold"], got["split"], got["novel_images"]) == (0, "train", "keep")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_episodes_are_those_of_the_data_module(voc, tmp_path, split):
    out = tmp_path / "e.json"
    args = ("--fold", 1, "--shot", 2, "--seed", 7, "--count", 9, "--split", split)
    result = _run("episodes", "shapes", *args, "--root", voc.root, "--out", out)
    assert result.exit_code == 0, result.output
    loaded = EpisodeList.load(out)
    options = EpisodeOptions("base", test_episodes=9, test_seed=7)
    streams = EpisodeStreams(voc, 1, 2, 7, IndexOptions(min_area=150), options)
    assert loaded.episodes == record(getattr(streams, split), 9)
    assert (loaded.data, loaded.fold, loaded.shot, loaded.split, loaded.seed) == ("shapes", 1, 2, split, 7)


def test_index_of_coco(coco128, tmp_path):
    out = tmp_path / "c.json"
    assert _run("index", "coco", "--split", "val", "--root", coco128, "--out", out).exit_code == 0
    assert len(json.loads(out.read_text())["per_class"]) == 20


def test_small_classes_are_an_error_or_left_out(coco128, tmp_path):
    args = ("episodes", "coco", "--root", coco128, "--out", tmp_path / "e.json", "--count", 5)
    refused = _run(*args)
    assert refused.exit_code == 2
    assert "--small-classes drop" in refused.output
    assert _run(*args, "--small-classes", "drop").exit_code == 0
    assert len(EpisodeList.load(tmp_path / "e.json")) == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--fold", 9, "--root", "VOC"), "0, 1, 2, 3"),
        (("--root", "nowhere"), "fss data shapes --root nowhere"),
        ((), "--root R"),
        (("--masks", "VOC"), "--ids FILE"),
        (("--root", "VOC", "--min-area", 0), "min_area=0"),
    ],
)
def test_wrong_input_is_one_paragraph_and_writes_nothing(voc, tmp_path, args, message):
    args = [voc.root if a == "VOC" else a for a in args]
    result = _run("index", "shapes", *args, "--out", tmp_path / "f.json")
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "f.json").exists()


def test_help_loads_nothing_heavy():
    code = "import sys, fss.cli.data; print([m for m in ('torch', 'numpy', 'cv2', 'hydra') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_shapes_writes_a_data_set(tmp_path):
    root = tmp_path / "shapes"
    result = _run("shapes", "--root", root, "--train", 4, "--val", 2, "--pretrain-per-class", 1)
    assert result.exit_code == 0, result.output
    assert len((root / "classes.txt").read_text().split()) == 20
