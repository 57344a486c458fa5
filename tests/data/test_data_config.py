from pathlib import Path

import pytest
import yaml

from fss.data.episodes.options import EpisodeOptions, IndexOptions
from fss.data.options import TransformOptions

CONF = Path(__file__).resolve().parents[2] / "conf" / "data"
NAMES = sorted(p.stem for p in CONF.glob("*.yaml"))
SIZES = {"pascal": (473, 0.9, 1.1), "coco": (641, 0.8, 1.25), "shapes": (129, 0.9, 1.1)}


def test_all_three_are_there():
    assert NAMES == ["coco", "pascal", "shapes"]


@pytest.mark.parametrize("name", NAMES)
def test_config_holds_valid_options_and_comments(name):
    text = (CONF / f"{name}.yaml").read_text()
    node = yaml.safe_load(text)
    assert node["name"] == name
    assert (node["size"], node["scale_min"], node["scale_max"]) == SIZES[name]
    TransformOptions(node["size"], node["scale_min"], node["scale_max"], node["rotate"])
    IndexOptions(node["novel_images"], node["min_area"], node["small_classes"])
    EpisodeOptions(test_episodes=node["test_episodes"], val_episodes=node["val_episodes"])


@pytest.mark.parametrize("name", NAMES)
def test_reader_takes_the_arguments(name):
    import importlib

    node = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    path, _, reader = node["source"].pop("_target_").rpartition(".")
    arguments = {k: node[v[len("${data.") : -1]] for k, v in node["source"].items()}
    source = getattr(importlib.import_module(path), reader)(**arguments)
    assert source.name == name
