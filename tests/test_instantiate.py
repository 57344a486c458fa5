"""A configuration builds one object of a known kind from plain values, and nothing else: crafted ones run nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import fss
from fss.backbones.staged import StagedModule
from fss.config.source import build_source
from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.svf import SVF
from fss.instantiate import make, partial
from fss.model.build import build_model, build_strategy
from fss.model.checkpoint import read_checkpoint, refuse_strangers
from fss.runs.build import build_recipe

CONFIG: dict[str, Any] = {
    "backbone": {
        "_target_": "fss.backbones.resnet.ResNet", "name": "resnet18", "depth": 18, "width": 8, "stem": "torchvision",
        "dilation": "torchvision", "weights": "none",
    },
    "method": {"_target_": "fss.methods.baseline.Baseline", "name": "baseline", "width": 8},
    "finetune": {"_target_": "fss.finetune.freeze.Freeze", "name": "freeze"},
    "data": {"name": "shapes", "size": 65, "source": {"_target_": "fss.data.sources.shapes.ShapesSource", "root": "x"}},
    "recipe": {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}, "schedule": {"_target_": "fss.lit.optim.cosine"},
        "backbone_lr_factor": 1.0, "untrained": [],
    },
    "trainer": {"_target_": "pytorch_lightning.Trainer"}, "fold": 0, "shot": 1,
}  # fmt: skip


def write(path: Path, config: dict[str, Any], **card: Any) -> Path:
    model = build_model(CONFIG)
    build_strategy(CONFIG["finetune"]).apply(model.backbone)  # type: ignore[arg-type]
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state, "fss": {"format": 2, "config": config, "identity": "0" * 64, **card}}, path)
    return path


def test_an_honest_checkpoint_loads(tmp_path: Path) -> None:
    assert fss.load(write(tmp_path / "x.ckpt", CONFIG)).backbone is not None


def crafted(victim: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Group and what a crafted file puts there: each would write ``victim`` while it is built."""
    write_json = {"_target_": "fss.files.write_json", "path": str(victim), "content": "x"}
    svf = {"_target_": "fss.finetune.svf.SVF", "name": "svf"}
    return {
        "a function of ours in place of a strategy": ("finetune", {**write_json, "name": "svf"}),
        "a function of ours in place of a head": ("method", {**write_json, "name": "baseline"}),
        "a function of ours in place of a backbone": ("backbone", {**write_json, "name": "r", "weights": "none"}),
        "nested in an argument": ("finetune", {**svf, "stages": write_json}),
        "nested in a list": ("finetune", {**svf, "stages": [write_json]}),
        "nested deeper": ("method", {**CONFIG["method"], "width": {"a": {"b": [write_json]}}}),
        "positional arguments": ("finetune", {**svf, "_args_": [[2, 3, 4]]}),
        "a bound call": ("finetune", {**svf, "_partial_": True}),
        "a recursive call": ("finetune", {**svf, "_recursive_": False}),
        "another kind of ours": ("finetune", {**CONFIG["method"]}),
        "a standard library": ("finetune", {"_target_": "os.system", "name": "svf", "command": f"touch {victim}"}),
        "through a module of ours": ("finetune", {"_target_": "fss.files.os.remove", "name": "svf", "path": "x"}),
        "no target": ("finetune", {"name": "svf"}),
    }


@pytest.mark.parametrize("case", sorted(crafted(Path())))
def test_a_crafted_checkpoint_runs_nothing(case: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    group, node = crafted(victim)[case]
    file = write(tmp_path / "x.ckpt", {**copy.deepcopy(CONFIG), group: node})
    with pytest.raises(FssError):
        fss.load(file)
    assert not victim.exists()


@pytest.mark.parametrize("part", ["method", "backbone"])
def test_a_crafted_base_learner_runs_nothing(part: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    config = copy.deepcopy(CONFIG)
    built = {
        "classes": 3,
        "method": {"_target_": "fss.methods.base_learner.BaseLearner"},
        "backbone": CONFIG["backbone"],
    }
    built[part] = {
        "_target_": "fss.files.write_json",
        "path": str(victim),
        "content": "x",
        "name": "n",
        "weights": "none",
    }
    config["method"] = {"_target_": "fss.methods.bam.BAM", "name": "bam", "base_learner": {"built": built}}
    with pytest.raises(FssError):
        fss.load(write(tmp_path / "x.ckpt", config))
    assert not victim.exists()


@pytest.mark.parametrize(
    ("group", "node"),
    [
        ("data", {"source": {"_target_": "fss.files.write_json", "path": "victim", "content": "x"}}),
        (
            "data",
            {"source": {"_target_": "fss.data.reading.derived_files.write_atomic", "path": "victim", "content": ""}},
        ),
        ("recipe", {"optimizer": {"_target_": "fss.files.write_json", "path": "victim"}}),
        ("trainer", {"_target_": "pytorch_lightning.Trainer", "logger": {"_target_": "fss.files.write_json"}}),
    ],
)
def test_what_eval_builds_besides_is_checked_too(
    group: str, node: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if group != "data":
        with pytest.raises(FssError):
            refuse_strangers(Path("x.ckpt"), [node])
    else:
        with pytest.raises(FssError):
            build_source(node)
    assert not (tmp_path / "victim").exists()


def test_a_reader_must_be_a_reader(tmp_path: Path) -> None:
    node = {"source": {"_target_": "fss.data.reading.derived_files.write_atomic", "path": str(tmp_path / "v")}}
    with pytest.raises(FssError, match="no reader of a data set"):
        build_source(node)


def test_kinds_of_a_recipe() -> None:
    recipe = build_recipe(CONFIG["recipe"])
    assert recipe.schedule(1.0) == 0
    for part, wrong in (("optimizer", "fss.lit.optim.cosine"), ("schedule", "torch.optim.SGD")):
        node = copy.deepcopy(CONFIG["recipe"])
        node[part]["_target_"] = wrong
        with pytest.raises(FssError, match=f"recipe.{part} may name"):
            build_recipe(node)
    with pytest.raises(FssError, match="only plain values"):
        partial("recipe.optimizer", {"_target_": "torch.optim.SGD", "lr": {"_target_": "fss.x"}}, lambda found: True)


def test_trust_is_not_a_licence_for_other_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trusted package's classes are built, its functions are not called."""
    (tmp_path / "trusted_by_a_test.py").write_text(
        "from pathlib import Path\n\ndef touch(**k):\n    Path('victim').touch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = {**copy.deepcopy(CONFIG), "finetune": {"_target_": "trusted_by_a_test.touch", "name": "svf"}}
    file = write(tmp_path / "x.ckpt", config)
    with pytest.raises(FssError, match="not a Strategy"):
        fss.load(file, trusted=["trusted_by_a_test"])
    assert not (tmp_path / "victim").exists()


def test_another_format_is_refused(tmp_path: Path) -> None:
    for version in (1, 3, None):
        with pytest.raises(FssError, match=rf"format {version}, this version of fss reads format 2"):
            read_checkpoint(write(tmp_path / "x.ckpt", CONFIG, format=version))


def test_what_is_built_is_of_the_kind() -> None:
    assert isinstance(
        make("finetune", {"_target_": "fss.finetune.svf.SVF", "name": "svf", "stages": [4]}, Strategy), SVF
    )
    with pytest.raises(FssError, match="not a StagedModule"):
        make("backbone", {"_target_": "fss.finetune.svf.SVF", "name": "svf"}, StagedModule)
