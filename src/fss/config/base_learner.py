"""Which base learner a run uses, known before torch is imported: its identity is part of the run's."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig

from fss.commands import option, program
from fss.config.backbone_facts import SIZES, VIEW, with_added
from fss.config.base_learner_command import command, search_path
from fss.config.checks import check
from fss.config.compose import plain
from fss.config.content import DATA, WEIGHTS, with_content
from fss.config.identity import identity
from fss.errors import FssError
from fss.results import ReportError, Result, load_result

NAME = "base_learner"
RUNS = Path("multirun")

Config = dict[str, Any]

# What a base learner takes over from the run that asks for it, besides its backbone and the reader of the data.
# Not its seed: runs of several seeds, side by side or one after the other, share one.
_SHARED = ("fold", "group", "workers", "checkpoint_minutes", "logger")
_TRAINER = (
    "accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "enable_progress_bar",
    "log_every_n_steps", "limit_train_batches", "limit_val_batches", "limit_test_batches",
)  # fmt: skip
NOTES = {
    "base": "the tested checkpoint is the best on these very images, by base classes: no novel class was scored",
    "last": "the weights after the last epoch were tested: nothing was selected",
}
"""Selections that a base learner knows, and what they mean."""

_NOT_ARGUMENTS = ("_target_", "name", "weights", WEIGHTS, SIZES, VIEW, NAME)
_NOT_COMPARED = ("_target_", "weights", WEIGHTS, "dilation", SIZES, VIEW, NAME)


@dataclass(frozen=True)
class Found:
    """A finished base learner.

    Attributes:
        checkpoint: its file.
        identity: hash of its run.
        miou: its mIoU over the base classes of the validation images, in percent.
        whole: its training was not cut shorter than that of the run that needs it, as measurements of time are.
    """

    checkpoint: Path
    identity: str
    miou: float
    whole: bool


def completed(config: Config) -> Config:
    """Add to a configuration what its identity depends on besides the options: content of files, base learner.

    Args:
        config: resolved, plain values.

    Returns:
        A copy, see :func:`fss.config.content.with_content` and :func:`with_base_learner`.

    Raises:
        FssError: as :func:`with_base_learner`.
    """
    return with_base_learner(with_content(config))


def with_base_learner(config: Config) -> Config:
    """Add to a configuration which base learner it uses: an existing one, or the one that will be trained for it.

    Args:
        config: resolved, plain values.

    Returns:
        The same, or a copy with ``method.base_learner.identity`` or ``backbone.base_learner``.

    Raises:
        FssError: if one is needed, there is none, and none may be trained; or if a base learner is to be trained in
            another way than the one there is.
    """
    trains = config["method"]["name"] == NAME
    if trains:
        _check_own(config)
    of_weights = config["backbone"]["weights"] == NAME
    node = config["method"].get(NAME)
    if of_weights and (trains or node is not None):
        raise FssError(
            f"backbone.weights={NAME} does not go with method={config['method']['name']}: it names the weights from "
            "which the base learner itself starts. Give imagenet, none, or the path of a .pth file."
        )
    if not of_weights and node is None:
        return config
    changed = copy.deepcopy(config)
    if of_weights:
        changed["backbone"][NAME] = {"identity": _existing(config).identity}
    else:
        changed["method"][NAME]["identity"] = _chosen(config, changed["method"][NAME])
    return changed


def find(config: Config, wanted: str | None = None) -> Found | None:
    """Look below ``multirun/`` for a finished base learner of a data set, backbone and fold.

    Runs of the group ``debug`` count for others of that group only.

    Args:
        config: of the run that needs it.
        wanted: identity that it must have; None: any, and the newest one is taken.

    Returns:
        The base learner, or None.
    """
    return next((found for found in _fitting(config) if wanted in (None, found.identity)), None)


def checkpoint_of(folder: Path, rule: str) -> Path:
    """Return the checkpoint that a run tested.

    Args:
        folder: of the run.
        rule: its selection.
    """
    return folder / "checkpoints" / ("last.ckpt" if rule == "last" else "best.ckpt")


def differences(base: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """List in what a base learner does not fit a run.

    Args:
        base: configuration of the base learner.
        config: of the run that needs it.

    Returns:
        Lines ``key: its value, not the wanted one``; empty if it fits.
    """
    pairs = [("method", base["method"]["name"], NAME), ("fold", base["fold"], config["fold"])]
    pairs += [(f"data.{k}", base["data"].get(k), config["data"].get(k)) for k in ("name", "scheme", DATA)]
    own, other = with_added(base["backbone"]), with_added(config["backbone"])
    keys = sorted({*own, *other} - set(_NOT_COMPARED))
    pairs += [(f"backbone.{k}", own.get(k), other.get(k)) for k in keys]
    return [f"{name}={its}, not {wanted}" for name, its, wanted in pairs if its != wanted]


def base_learner_config(config: Config) -> Config:
    """Compose the training of the base learner that a run needs.

    Args:
        config: of that run; ``method.base_learner.overrides`` are options of the training.

    Returns:
        Resolved configuration: ``method=base_learner`` with the run's data, fold, backbone, seed and hardware.
    """
    own = [str(o) for o in config["method"].get(NAME, {}).get("overrides", [])]
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    named = {group: config[group]["name"] for group in ("data", "backbone")}
    named |= {group: choices[group] for group in ("data", "backbone", "debug") if choices.get(group)}
    picked = [f"{group}={choice}" for group, choice in named.items()]
    picked += [f"+size={choices['size']}"] if choices.get("size") else []  # no entry of the defaults list
    picked += search_path()
    picked += [f"++data.base.{k}={v}" for k, v in config["data"].get("base", {}).items()]
    if config["backbone"].get(SIZES) is None:  # sizes follow the class, which needs its arguments
        arguments = [k for k in config["backbone"] if k not in _NOT_ARGUMENTS]
        picked += [option(f"++backbone.{k}", config["backbone"][k]) for k in arguments]
    base = plain(compose("config", overrides=[*picked, f"method={NAME}", *own]))
    given = {o.split("=", 1)[0].lstrip("+~") for o in own}

    def take(names: list[str], target: Config, source: Mapping[str, Any], prefix: str = "") -> None:
        for name in names:
            if prefix + name not in given and name in source:
                target[name] = copy.deepcopy(source[name])

    take(list(_SHARED), base, config)
    take(list(_TRAINER), base["trainer"], config["trainer"], "trainer.")
    backbone = [k for k, v in config["backbone"].items() if (k, v) != ("weights", NAME)]
    take(backbone, base["backbone"], config["backbone"], "backbone.")
    reader = [k for k in config["data"]["source"] if k != "_target_"]
    take(reader, base["data"], config["data"], "data.")
    take(reader, base["data"]["source"], config["data"]["source"], "data.")
    return with_content(base)


def _fitting(config: Config) -> Iterator[Found]:
    """Yield the finished base learners that fit a run, newest first."""
    dated = sorted(((p.stat().st_mtime, p) for p in RUNS.rglob("result.json")), reverse=True)
    for _, path in dated:
        result = _result(path)
        if result is None or differences(result.config, config):
            continue
        if result.key.experiment == "debug" and config["group"] != "debug":
            continue
        file = checkpoint_of(path.parent, result.selection.rule)
        if file.is_file():
            yield Found(file, result.identity, result.scores.miou, _whole(result.config, config))


def _whole(base: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    own, run = base["trainer"], config["trainer"]
    same = own.get("limit_train_batches") in (1.0, None, run.get("limit_train_batches"))
    return same and own.get("max_steps") in (-1, None, run.get("max_steps"))


def _chosen(config: Config, node: Mapping[str, Any]) -> str:
    if node["checkpoint"] is not None:
        return _content_hash(Path(node["checkpoint"]).expanduser())
    if not node["train_if_missing"]:
        return _existing(config).identity
    found, own = _preferred(config)
    if found is not None:
        return found.identity
    try:
        check(own)
    except FssError as error:
        raise FssError(
            f"The base learner that this run would train first: {error} Options of that training go into "
            f"method.base_learner.overrides, or train it by itself: {command(config)}"
        ) from error
    return identity(own)


def _preferred(config: Config) -> tuple[Found | None, Config]:
    """Return the base learner to use, if there is one, and the training that would make it.

    The very one that the run would train comes first, so that a newer one does not change what the run is.
    """
    own = base_learner_config(config)
    wanted, fitting = identity(own), list(_fitting(config))
    asked = config["method"].get(NAME, {}).get("overrides")  # those who change its training want that one
    others = [] if asked else [f for f in fitting if f.whole]
    return next((f for f in fitting if f.identity == wanted), others[0] if others else None), own


def _existing(config: Config) -> Found:
    found, _ = _preferred(config)
    if found is None:
        raise FssError(
            f"There is no finished base learner below {RUNS}/ for data={config['data']['name']}, "
            f"backbone={config['backbone']['name']} and fold={config['fold']}. Train one: {command(config)}"
        )
    return found


def _check_own(config: Config) -> None:
    """Refuse options that the training of a base learner does not follow."""
    if config["selection"] not in NOTES:
        raise FssError(
            f"selection={config['selection']} does not go with method={NAME}, which knows no novel classes: choose "
            "base (best on the validation images) or last."
        )
    finetune = config["finetune"]
    whole = finetune["name"] == "full" and finetune["stages"] == [0, 1, 2, 3, 4] and finetune["train_norm"]
    if not whole or finetune.get("norm_mode", "eval") != "eval":
        raise FssError(
            f"finetune={finetune['name']} with these options does not go with method={NAME}, which trains the whole "
            f"network, batch norm included. Leave the options of finetune out: {program()} method={NAME}"
        )


def _content_hash(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FssError(
            f"method.base_learner.checkpoint={path} cannot be read: {error.strerror}. Give a checkpoint of "
            "method=base_learner, multirun/<group>/<run>/checkpoints/best.ckpt, or leave the option out."
        ) from error


def _result(path: Path) -> Result | None:
    """Read a result if it is a base learner's; files of other runs may even be damaged."""
    try:
        if json.loads(path.read_text(encoding="utf-8"))["key"]["method"] != NAME:
            return None
        return load_result(path)
    except (OSError, ValueError, KeyError, TypeError, ReportError):
        return None
