"""The command that trains a missing base learner can be typed as it is shown."""

from __future__ import annotations

import shlex

import pytest

from fss.config.base_learner_command import command
from fss.config.compose import composed

ROOT = "Bilder für mich/lr=0.1 #2"


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_it_composes_and_keeps_paths_and_widths(backbone: str) -> None:
    """The file of ``resnet50`` has no width, so that ``backbone.width=8`` was refused; paths were not quoted."""
    config = composed(["data=shapes", "method=bam", f"backbone={backbone}", "++backbone.width=8", "fold=2"])
    config["data"]["root"] = ROOT
    program, script, *words = shlex.split(command(config))
    assert (program, script) == ("python", "train.py")
    again = composed(words)
    assert (again["method"]["name"], again["fold"], again["data"]["root"]) == ("base_learner", 2, ROOT)
    assert (again["backbone"]["name"], again["backbone"]["width"]) == (backbone, 8)


def test_lists_and_options_of_its_training_are_kept() -> None:
    overrides = ["method.width=8", "finetune.stages=[0,1,2,3,4]"]
    config = composed(["data=pascal", "method=bam", "data.train_list=my list.txt"])
    config["method"]["base_learner"]["overrides"] = overrides
    words = shlex.split(command(config))[2:]
    assert words[-2:] == overrides
    assert composed(words)["data"]["train_list"] == "my list.txt"
