"""One contract over every data set in conf/data; no file of any data set is needed."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from tests.contracts.classes import defined
from tests.contracts.strategies import CONF

from fss.config.compose import choices, plain, prepare_hydra
from fss.config.source import build_source
from fss.data.sources.base import SegmentationSource
from fss.data.sources.folds import FOLDS
from fss.errors import DataError

NAMES = choices("data")
METHODS = ("check", "facts", "fold", "ids", "image", "image_path", "mask", "mask_path", "prepare")
OF_SOME = {"train_list", "val_list", "folds"}
"""Keys of pascal.yaml that another reader need not have, and one that pascal.yaml lacks."""


@cache
def composed(name: str) -> dict[str, Any]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        return plain(compose("config", overrides=[f"data={name}"]))


def source(name: str, root: Path) -> SegmentationSource:
    node = composed(name)["data"]
    return build_source(node | {"source": node["source"] | {"root": str(root)}})


def test_every_reader_has_a_yaml() -> None:
    readers = defined("data.sources", lambda cls: all(callable(getattr(cls, m, None)) for m in METHODS))
    readers = {path: cls for path, cls in readers.items() if not getattr(cls, "_is_protocol", False)}
    lacking = sorted(readers.keys() - {composed(name)["data"]["source"]["_target_"] for name in NAMES})
    assert len(readers) >= 3
    assert lacking == [], "these readers have no yaml in conf/data"


@pytest.mark.parametrize("name", NAMES)
def test_yaml_and_reader_agree(name: str) -> None:
    node = composed(name)["data"]
    module, _, cls = node["source"]["_target_"].rpartition(".")
    reader = getattr(importlib.import_module(module), cls)
    assert node["name"] == name
    assert reader.name == name
    assert inspect.getdoc(reader), f"{cls} has no docstring"
    assert node["source"].keys() - {"_target_"} <= inspect.signature(reader).parameters.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_yaml_holds_every_option_of_the_data_module(name: str) -> None:
    lacking = sorted(composed("pascal")["data"].keys() - composed(name)["data"].keys() - OF_SOME)
    assert lacking == [], "begin the yaml with `defaults: [pascal, _self_]` to take over what it does not say"


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_folder_is_named_in_words(name: str, split: Any, tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    with pytest.raises(DataError, match=str(root)):
        source(name, root).check(split)


@pytest.mark.parametrize("name", NAMES)
def test_folds_part_the_classes(name: str, tmp_path: Path) -> None:
    """Of readers that know their classes without any file."""
    folds = composed(name)["data"].get("folds", FOLDS)
    try:
        reader = source(name, tmp_path)
        names = reader.class_names
    except DataError:
        pytest.skip("its classes stand in a file")
    assert list(names) == sorted(names)
    assert all(0 < i < 255 for i in names), "masks hold one byte: 0 is background, 255 is ignored"
    found = [reader.fold(i) for i in range(folds)]
    for fold in found:
        assert set(fold.base) | set(fold.novel) == set(names)
        assert not set(fold.base) & set(fold.novel)
    with pytest.raises(DataError):
        reader.fold(folds)
