"""Options that are typed beside others which leave them without effect: said once, before a run starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fss.commands import option
from fss.config.known_keys import files_of
from fss.config.places import CONF
from fss.config.recording import records

Config = Mapping[str, Any]

log = logging.getLogger(__name__)
_said: set[str] = set()

_LEARNER = "base_learner"
_OF_BASE = ("size", "scale_min", "scale_max", "epochs")
_OF_EPISODES = (
    "shot", "test_seed", "previews", "data.test_episodes", "data.val_episodes", "data.test_shot", "data.sampler",
    "data.episodes", "data.novel_images", "data.min_area", "data.small_classes", "data.min_test_images",
    "feature_cache_mb",
)  # fmt: skip
_OF_VALIDATION = ("data.val_episodes", "trainer.limit_val_batches", "trainer.check_val_every_n_epoch")
_OF_RECORDING = tuple(f"recording.{name}" for name in ("every", "episodes", "maps", "layers", "gallery"))
_OF_AUGMENTATION = ("data.scale_min", "data.scale_max", "data.rotate")
_OF_TRAINING = ("epochs", "base", "augment", "scale_min", "scale_max", "rotate", "novel_images", "val_episodes")
_OF_HARDWARE = (
    "accelerator", "devices", "num_nodes", "strategy", "precision", "enable_progress_bar", "limit_test_batches",
)  # fmt: skip

_RULES: tuple[tuple[tuple[str, ...], Callable[[Config], bool], str], ...] = (
    (("data.base",), lambda c: not _has_learner(c), "it belongs to base learners, and this run trains and uses none"),
    (("data.base", "method.base_learner.overrides", "method.base_learner.train_if_missing"),
     lambda c: (c["method"].get(_LEARNER) or {}).get("checkpoint") is not None,
     "method.base_learner.checkpoint gives the base learner, so that none is trained"),
    (("recipe.backbone_lr_factor",), lambda c: c["finetune"]["name"] == "freeze",
     "finetune=freeze trains no value of the backbone"),
    (_OF_AUGMENTATION, lambda c: c["data"].get("augment") is False, "data.augment=false trains without augmentation"),
    (_OF_AUGMENTATION, lambda c: "augment" not in _training_transforms(c), "protocol.query and protocol.support name "
     "transforms that do not read it"),
    (_OF_VALIDATION, lambda c: c["selection"] == "last" and not records(dict(c)),
     "selection=last validates nothing"),
    (_OF_RECORDING, lambda c: not records(dict(c)), "nothing is recorded without recording=on"),
    (("logger.project",), lambda c: c["logger"].get("wandb") == "disabled", "logger.wandb=disabled sends nothing"),
    (_OF_EPISODES, lambda c: c["method"]["name"] == _LEARNER, "a base learner is trained on images, not on episodes"),
    (("data.epochs",), lambda c: c["trainer"].get("max_epochs") != c["data"].get("epochs"),
     "trainer.max_epochs is what counts"),
)  # fmt: skip


def without_effect(config: Config, words: Sequence[str], choices: Mapping[str, Any]) -> list[str]:
    """List typed options of a run that others leave without effect.

    Args:
        config: resolved, plain values.
        words: options as typed.
        choices: group -> choice.

    Returns:
        Sentences, one for each option.
    """
    given = _given(words)
    found = [*_twice(words), *_replaced(config, given, choices), *_of_other_choices(given, choices)]
    for key, word in given.items():
        reasons = [text for keys, holds, text in _RULES if _among(key, keys) and holds(config)]
        found += [f"{word} has no effect: {text}." for text in reasons[:1]]
        name = key.removeprefix("data.base.")
        if config["method"]["name"] == _LEARNER and name in _OF_BASE and key != name:
            wanted, trained = config["data"]["base"][name], config["data"][name]
            if wanted != trained and f"data.{name}" not in given:
                found.append(
                    f"{word} has no effect: {_setter(f'data.{name}', choices)} sets data.{name}={trained}, which is "
                    f"what trains. Type {option(f'data.{name}', wanted)}."
                )
            elif wanted != trained:
                found.append(f"{word} has no effect beside {given[f'data.{name}']}, which replaces it.")
    return found


def without_effect_on_a_test(config: Config, words: Sequence[str]) -> list[str]:
    """List typed options of ``eval.py`` that have no effect on a test.

    Args:
        config: resolved, plain values of ``eval.py``.
        words: options as typed.

    Returns:
        Sentences, one for each option.
    """
    found = list(_twice(words))
    for key, word in _given(words).items():
        group, _, name = key.partition(".")
        if key in ("tau", "merge") and config["task"] != "generalised":
            found.append(f"{word} has no effect without task=generalised.")
        if (group == "trainer" and name and name not in _OF_HARDWARE) or (
            group == "data" and _among(name, _OF_TRAINING)
        ):
            found.append(f"{word} has no effect on a test, it is an option of the training.")
    return found


def warn_once(sentences: Sequence[str]) -> None:
    """Log warnings, each once in a process: the runs of a sweep share their options.

    Args:
        sentences: what to say.
    """
    for sentence in sentences:
        if sentence not in _said:
            _said.add(sentence)
            log.warning(sentence)


def _given(words: Sequence[str]) -> dict[str, str]:
    """Return key -> the word that sets it, the last one if several do."""
    return {word.lstrip("+~").partition("=")[0]: word for word in words}


def _among(key: str, keys: Sequence[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)


def _training_transforms(config: Config) -> list[Any]:
    """Return the transforms of training episodes, or what a base learner trains with."""
    protocol = config.get("protocol") or {}
    ordinary = "augment"
    if config["method"]["name"] == _LEARNER:
        return [ordinary]
    return [protocol.get(part, ordinary) for part in ("query", "support")]


def _has_learner(config: Config) -> bool:
    method = config["method"]
    return method["name"] == _LEARNER or _LEARNER in method or config["backbone"].get("weights") == _LEARNER


def _twice(words: Sequence[str]) -> Iterator[str]:
    """Yield an option for every one that a later one replaces."""
    last = _given(words)
    for word in words:
        kept = last[word.lstrip("+~").partition("=")[0]]
        if kept != word:
            yield f"{word} has no effect: {kept} comes after it."


def _options(group: str, choice: Any) -> dict[str, str]:
    """Return key -> value of a choice, as written in its file; none for a user's own file."""
    return next(
        ({k: o.default for k, o in file.options.items()} for file in files_of(CONF, group) if file.name == choice), {}
    )


def _setter(key: str, choices: Mapping[str, Any]) -> str:
    """Name the preset that sets a key."""
    found = [g for g in ("experiment", "debug", "size") if key in _options(g, choices.get(g))]
    return f"{found[-1]}={choices[found[-1]]}" if found else "another option"


def _replaced(config: Config, given: Mapping[str, str], choices: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an experiment or a debug preset sets in a group whose choice was typed."""
    for preset in ("experiment", "debug"):
        sets = _options(preset, choices.get(preset))
        for key in sets:
            group = key.partition(".")[0]
            own = _options(group, choices.get(group)) if group in given else {}
            if key in own and own[key] != sets[key] and key not in given:
                yield (
                    f"{preset}={choices[preset]} sets {key}={_value(config, key)} where {given[group]} has {own[key]}. "
                    f"To have that, type {key}={own[key]}."
                )


def _value(config: Config, key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = node[name]
    return node


def _of_other_choices(given: Mapping[str, str], choices: Mapping[str, Any]) -> Iterator[str]:
    """Yield added options that only other choices of their group read."""
    for key, word in given.items():
        group = key.partition(".")[0]
        if group not in ("data", "logger", "recording") or not word.startswith("+") or key == group:
            continue
        own = _options(group, choices.get(group))
        others = [f"{group}={file.name}" for file in files_of(CONF, group) if key in file.options]
        if own and key not in own and others:
            yield f"{word} has no effect: it belongs to {', '.join(others)}."
