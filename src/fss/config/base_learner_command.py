"""The command that trains the base learner of a run, as a user types it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig

from fss.commands import option, typed
from fss.config.backbone_facts import SIZES, VIEW
from fss.config.known_keys import files_of
from fss.config.places import CONF

_NAME = "base_learner"


def command(config: Mapping[str, Any]) -> str:
    """Return the command that trains the base learner of a run.

    Args:
        config: of that run.
    """
    data, backbone = config["data"], config["backbone"]
    size = HydraConfig.get().runtime.choices.get("size") if HydraConfig.initialized() else None
    words = [*search_path(), f"method={_NAME}", *([f"+size={size}"] if size else []), f"data={data['name']}"]
    words += [option(f"data.{k}", data[k]) for k in ("root", "train_list", "val_list") if data.get(k) is not None]
    written = _written("backbone", backbone["name"])
    words += [f"backbone={backbone['name']}"]
    words += [
        option(f"{'' if k in written else '++'}backbone.{k}", backbone[k])
        for k in ("stem", "width", *_changed(backbone, written))
        if k in backbone
    ]
    if backbone["weights"] not in (_NAME, written.get("weights", "imagenet")):
        words.append(option("backbone.weights", backbone["weights"]))
    return typed(*words, f"fold={config['fold']}", *config["method"].get(_NAME, {}).get("overrides", []))


def search_path() -> list[str]:
    """Return the option with which a run found files of a user's own package; none if it was not given."""
    own = list(HydraConfig.get().searchpath) if HydraConfig.initialized() else []
    return [option("hydra.searchpath", own)] if own else []


def _written(group: str, name: str) -> dict[str, str]:
    """Return the keys that a choice's file holds, which are typed without ``++``, and their defaults.

    Of a user's own file the keys are taken to be there, and nothing is known of the defaults.
    """
    found = next((file for file in files_of(CONF, group) if file.name == name), None)
    if found is None:
        return {"stem": "", "width": ""}
    return {key.partition(".")[2]: one.default for key, one in found.options.items()}


def _changed(backbone: Mapping[str, Any], written: Mapping[str, str]) -> list[str]:
    """Return the other options of a backbone that are not the defaults of its file; those that follow others are."""
    return [
        key
        for key, default in written.items()
        if key not in ("name", "stem", "width", "weights", SIZES, VIEW)
        and not default.startswith("${")
        and option("", backbone.get(key)) != f"={default}"
    ]
