"""The command that trains the base learner of a run, as a user types it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig

from fss.commands import option, typed
from fss.config.conf_files import read_config
from fss.config.places import CONF

_NAME = "base_learner"


def command(config: Mapping[str, Any]) -> str:
    """Return the command that trains the base learner of a run.

    Args:
        config: of that run.
    """
    data, backbone = config["data"], config["backbone"]
    size = HydraConfig.get().runtime.choices.get("size") if HydraConfig.initialized() else None
    words = [f"method={_NAME}", *([f"+size={size}"] if size else []), f"data={data['name']}"]
    words += [option(f"data.{k}", data[k]) for k in ("root", "train_list", "val_list") if data.get(k) is not None]
    written = _written("backbone", backbone["name"])
    words += [f"backbone={backbone['name']}"]
    words += [
        option(f"{'' if k in written else '++'}backbone.{k}", backbone[k]) for k in ("stem", "width") if k in backbone
    ]
    if backbone["weights"] not in (_NAME, "imagenet"):
        words.append(option("backbone.weights", backbone["weights"]))
    return typed(*words, f"fold={config['fold']}", *config["method"].get(_NAME, {}).get("overrides", []))


def _written(group: str, name: str) -> set[str]:
    """Return the keys that a choice's file holds, which are typed without ``++``; of a user's own file, all."""
    path = CONF / group / f"{name}.yaml"
    keys = read_config(path, group).options if path.is_file() else {f"{group}.{k}": None for k in ("stem", "width")}
    return {key.partition(".")[2] for key in keys}
