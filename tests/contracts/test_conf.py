"""Every file in conf/ composes, and the files of a family are its registry."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

from fss.config.checks import check
from fss.config.compose import plain, prepare_hydra
from fss.config.identity import slug
from fss.data.options import TransformOptions
from fss.finetune.base import Strategy
from fss.instantiate import not_arguments, targets
from fss.methods.base import FewShotHead
from fss.methods.base_learner import BaseLearner

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
COUNTS = {  # at least; a group that shrinks or moves would be checked in vain
    "backbone": 20,
    "data": 3,
    "debug": 2,
    "experiment": 25,
    "finetune": 15,
    "logger": 3,
    "method": 4,
    "protocol": 2,
    "recipe": 4,
    "size": 1,
    "trainer": 3,
}
OPTIONS = sorted(  # a leading underscore marks a part of other files
    (p.parent.relative_to(CONF).as_posix(), p.stem) for p in CONF.glob("*/**/*.yaml") if not p.stem.startswith("_")
)
FAMILIES: dict[str, tuple[str, tuple[type, ...]]] = {
    "method": ("methods", (FewShotHead, BaseLearner)),
    "finetune": ("finetune", (Strategy,)),
}
SETTINGS = ("experiment", "debug", "size")  # files that set keys of other groups
WITH_TARGET = [(g, o) for g, o in OPTIONS if g in ("method", "finetune", "backbone")]


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    prepare_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        yield


def choice(group: str, option: str) -> str:
    """A size stands in no defaults list: it is added to any experiment."""
    return f"{'+' * (group == 'size')}{group}={option}"


@cache
def composed(*overrides: str, name: str = "config") -> dict[str, Any]:
    """Plain values, for reading alone: composing takes longer than any test of it."""
    return plain(compose(name, overrides=list(overrides)))


def test_every_group_is_counted() -> None:
    groups = {g for g, _ in OPTIONS}
    assert groups >= COUNTS.keys()
    for group, least in COUNTS.items():
        assert sum(g == group for g, _ in OPTIONS) >= least, group
    assert {p.stem for p in CONF.glob("*.yaml")} == {"config", "eval"}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_with_the_defaults(group: str, option: str) -> None:
    # an experiment and a debug preset are added, everything else replaces a default
    config = composed(choice(group, option))
    check(config)
    assert slug(config)
    if group in ("method", "finetune", "protocol", "recipe", "data"):
        assert config[group]["name"] == option
    OmegaConf.to_container(OmegaConf.create(config), throw_on_missing=group != "experiment")


def test_eval_composes() -> None:
    config = composed("ckpt=some.ckpt", name="eval")
    assert config["shot"] is None
    assert config["trainer"]["_target_"] == "pytorch_lightning.Trainer"


def test_a_misspelt_option_does_not_compose() -> None:
    with pytest.raises(Exception, match="finetune/svff"):
        composed("finetune=svff")


def imported(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_target_exists(group: str, option: str) -> None:
    for target in targets(composed(f"{group}={option}")[group]) if group not in SETTINGS else []:
        assert callable(imported(target)), target


@pytest.mark.parametrize(("group", "option"), WITH_TARGET)
def test_class_and_yaml_agree(group: str, option: str) -> None:
    node = composed(f"{group}={option}")[group]
    cls = imported(node["_target_"])
    assert inspect.getdoc(cls), f"{cls.__name__} has no docstring"
    if group in FAMILIES:
        assert cls.name == node["name"] == option
        assert issubclass(cls, FAMILIES[group][1])
        assert cls.__module__.startswith(f"fss.{FAMILIES[group][0]}.")
    own = set(not_arguments(group))
    parameters = inspect.signature(cls).parameters
    assert node.keys() - own <= parameters.keys(), "the yaml offers arguments that the class does not take"
    siblings = [composed(f"{group}={o}")[group] for g, o in WITH_TARGET if g == group]
    shown = {k for n in siblings if n["_target_"] == node["_target_"] for k in n}
    missing = parameters.keys() - shown - {"channels", "classes", "taps"}
    assert not missing, "constructor arguments that no yaml shows cannot be found by a user"


@pytest.mark.parametrize("group", FAMILIES)
def test_every_member_has_a_yaml_and_every_yaml_a_member(group: str) -> None:
    package, base = FAMILIES[group]
    found = {}
    for path in sorted((ROOT / "src" / "fss" / package).glob("*.py")):
        if not any(isinstance(n, ast.ClassDef) for n in ast.parse(path.read_text()).body):
            continue
        module = importlib.import_module(f"fss.{package}.{path.stem}")
        for cls in vars(module).values():
            own = inspect.isclass(cls) and cls.__module__ == module.__name__
            if own and issubclass(cls, base) and not inspect.isabstract(cls):
                assert inspect.getdoc(cls), f"{cls.__name__} has no docstring"
                found[cls.name] = f"{cls.__module__}.{cls.__name__}"
    assert len(found) >= COUNTS[group]
    in_conf = {o: yaml.safe_load((CONF / g / f"{o}.yaml").read_text()) for g, o in OPTIONS if g == group}
    assert sorted(found.keys() - in_conf.keys()) == [], f"these classes have no yaml in conf/{group}"
    assert sorted(in_conf.keys() - found.keys()) == [], (
        f"these files of conf/{group} have no class in src/fss/{package}"
    )
    used = {o: composed(f"{group}={o}")[group]["_target_"] for o in in_conf}
    assert used == found


def keys(node: Any, prefix: str = "") -> set[str]:
    if not isinstance(node, dict):
        return {prefix}
    return {prefix} | {k for name, value in node.items() for k in keys(value, f"{prefix}.{name}".lstrip("."))}


PRESETS = [(g, o) for g, o in OPTIONS if g in ("debug", "experiment")]


@pytest.mark.parametrize(("group", "option"), PRESETS)
def test_presets_set_only_what_exists(group: str, option: str) -> None:
    """A key in a file of another package is added silently where a command line would refuse it.

    Only a key that the file itself interpolates may be new.
    """
    config = composed(f"{group}={option}")
    chosen = [f"{g}={config[g]['name']}" for g in ("data", "backbone", "method", "finetune", "recipe")]
    known = keys(composed(*chosen)) | {f"trainer.{n}" for n in inspect.signature(Trainer).parameters}
    text = (CONF / group / f"{option}.yaml").read_text()
    own = {name for name in config if f"${{{name}." in text}
    assert {k for k in keys(config) - known if k.split(".")[0] not in own} == set()


def test_overfit_does_not_augment() -> None:
    assert "augment" in TransformOptions.__dataclass_fields__, "the data group hands its keys to these options by name"
    assert composed("debug=overfit")["data"].get("augment") is False


def test_heads_say_which_dilation_they_want() -> None:
    for group, option in OPTIONS:
        if group == "method":
            config = composed(f"method={option}")
            assert config["backbone"]["dilation"] == config["method"]["wants"]["dilation"]


def test_defaults_are_the_papers() -> None:
    config = composed()
    recipe = config["recipe"]
    assert (config["backbone"]["name"], config["finetune"]["name"], recipe["name"]) == ("resnet50", "svf", "paper")
    assert (recipe["optimizer"]["lr"], recipe["optimizer"]["momentum"]) == (0.015, 0.9)
    assert (recipe["optimizer"]["weight_decay"], recipe["batch_size"], recipe["backbone_lr_factor"]) == (1e-4, 8, 0.1)
    assert recipe["schedule"]["_target_"].endswith(".cosine")
    assert recipe["untrained"] == []
    release = composed("recipe=release")["recipe"]
    assert release["untrained"] == ["down_query"]
    assert release["schedule"]["_target_"].endswith(".constant")
    for data, size, epochs in (("pascal", 473, 200), ("coco", 641, 50)):
        node = composed(f"data={data}")["data"]
        assert (node["size"], node["epochs"], node["test_episodes"]) == (size, epochs, 1000)


@pytest.mark.parametrize("option", sorted(o for g, o in OPTIONS if g == "recipe"))
def test_every_recipe_builds_a_schedule(option: str) -> None:
    import torch

    from fss.runs.build import build_recipe

    recipe = build_recipe(composed(f"recipe={option}")["recipe"])
    assert 0 < recipe.schedule(0.0) <= 1
    assert 0 <= recipe.schedule(1.0) <= recipe.schedule(0.5) <= recipe.schedule(0.0)
    optimizer = recipe.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Optimizer)
