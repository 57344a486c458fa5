"""In which options a run differs from what a command would run: the protocol that a number claims to follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from fss.config.backbone_facts import RELEASED_VIEW
from fss.config.compose import composed
from fss.config.identity import determining
from fss.episode_protocol import EpisodeProtocol

Config = Mapping[str, Any]

_ANY = ("seed", "fold", "shot")
"""Options that tell runs of one row apart; which cell a run belongs to is decided elsewhere."""
_COUNTED = ("backbone", "data", "finetune", "method", "protocol", "recipe", "selection", "test_seed", "trainer")
_OF_CONTENT = ("content", "weights_content", "episodes_content")
_BASE_LEARNER = "base_learner"
_MISSING = "nothing"


def deviations(config: Config, command: Sequence[str]) -> list[str]:
    """Name every option that determines a run's numbers and is not what a command gives it.

    Args:
        config: resolved configuration of a finished run.
        command: options after ``python train.py``; fold, shot and seed do not matter.

    Returns:
        ``data.epochs=1 instead of 200``, one for each option.
    """
    wanted, found = _protocol(tuple(sorted(word for word in command if word.split("=")[0] not in _ANY))), _flat(config)
    if _BASE_LEARNER in config.get("method", {}) and config["method"]["name"] == wanted.get("method.name"):
        options = config["method"].get(_BASE_LEARNER, {}).get("overrides") or []
        found[f"method.{_BASE_LEARNER}.overrides"] = options
        wanted = {**wanted, f"method.{_BASE_LEARNER}.overrides": []}
    else:
        wanted = {name: value for name, value in wanted.items() if not name.startswith("data.base.")}
    names = [*wanted, *(name for name in found if name not in wanted and not name.startswith("data.base."))]
    if found.get("trainer.max_epochs") == found.get("data.epochs"):  # it follows that one
        names.remove("trainer.max_epochs")
    return [
        f"{name}={_shown(found.get(name, _MISSING))} instead of {_shown(wanted.get(name, _MISSING))}"
        for name in names
        if not _same(name, found.get(name, _MISSING), wanted.get(name, _MISSING))
    ]


_LISTS = ("train_list", "val_list")


@cache
def _protocol(command: tuple[str, ...]) -> dict[str, Any]:
    return _flat(composed(command))


def _flat(config: Config) -> dict[str, Any]:
    """Return the options that count by dotted name, with image lists that were given and the base learner's stage."""
    kept = {name: value for name, value in config.items() if name in _COUNTED}
    for group in ("data", "backbone"):
        node = kept.get(group, {})
        kept[group] = {name: value for name, value in node.items() if name not in _OF_CONTENT}
    given, flat = kept["data"], {}
    for name, value in _leaves(determining(kept)):
        if not name.startswith(f"method.{_BASE_LEARNER}.") and not name.endswith(_LISTS):
            flat[name] = value
    flat |= {f"data.{name}": given[name] for name in _LISTS if given.get(name) is not None}
    flat.setdefault("data.min_test_images", None)  # an identity has these only where they are set
    flat.setdefault("finetune.qkv", "one")
    flat.setdefault("method.support_view", RELEASED_VIEW)
    flat = {**{f"protocol.{name}": value for name, value in asdict(EpisodeProtocol()).items()}, **flat}
    return flat | {f"data.base.{name}": value for name, value in given.get("base", {}).items()}


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from _leaves(value, name)
        else:
            yield name, sorted(value, key=str) if name == "finetune.kernel_sizes" else value


def _same(name: str, found: Any, wanted: Any) -> bool:
    if name.startswith("trainer.limit_"):  # 1 is one batch, 1.0 all of them
        return type(found) is type(wanted) and bool(found == wanted)
    return bool(found == wanted)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
