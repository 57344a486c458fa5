"""Commands in hints can be typed: Hydra and the shell read back what was meant."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import fss.commands
from fss.commands import option, program, shell, typed
from fss.config.places import CONF
from fss.data.sources.shapes import ShapesSource
from fss.errors import FssError

VALUES = [
    "data/shapes", "runs/lr=0.1", "a#b", "Bilder für mich", "it's", 'say "x"', "back\\slash", "end\\", 'c:\\"q',
    "${x}", "$HOME", "1", "null", "true", "1e3", "1_000", "a,b", "[x]", "(a)", "{b}", " lead", "", "a:b", "~x", "a;b&c",
    "中文", "-x", "a!b", None, True, 3, 2.5, [1, "a=b"], ["data.epochs=20", "x"],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_an_option_is_read_back_as_it_was(value: Any) -> None:
    word = option("data.root", value)
    assert shlex.split(typed(word)) == [*program().split(), word]
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        cfg = compose("config", overrides=["data=shapes", word])
    assert OmegaConf.to_container(cfg.data)["root"] == (value if value != "${x}" else "\\${x}")


def test_simple_options_stand_as_they_are() -> None:
    assert typed("-m", option("fold", 2), option("data.root", Path("data/shapes"))) == (
        "python train.py -m fold=2 data.root=data/shapes"
    )
    assert typed(option("finetune.stages", [3, 4]), name="eval") == "python eval.py 'finetune.stages=[3,4]'"
    assert shell(Path("with space")) == "'with space'"


def test_an_installed_package_has_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fss.commands, "_CHECKOUT", tmp_path)
    assert (program(), program("eval")) == ("fss train", "fss eval")


def test_a_hint_quotes_the_folder_of_a_data_set() -> None:
    with pytest.raises(FssError, match="fss data shapes --root 'my data/#1'"):
        ShapesSource("my data/#1").check("train")
