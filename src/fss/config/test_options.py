"""What the options of eval.py make of a run's configuration."""

from __future__ import annotations

from typing import Any

from fss.config.checks import LEAKS
from fss.config.identity import identity
from fss.config.value_ranges import number
from fss.errors import FssError

TASKS = ("episodes", "generalised")
MERGES = ("final", "base")
SEEN = ("refuse", "drop", "keep")


def trusted_names(given: Any) -> list[str]:
    """Check the packages, besides fss, whose classes a checkpoint may name.

    Args:
        given: a list of names, or one.

    Returns:
        The list.

    Raises:
        FssError: if it is anything else.
    """
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip(".") for n in names):
        raise FssError(f"trusted={given} is not allowed: give names of Python packages, e.g. trusted=[my_package].")
    return names


def test_name(config: dict[str, Any]) -> str:
    """Name a test: readable parts, then six digits of its identity.

    Args:
        config: configuration of the test.

    Returns:
        The name of its folder, another one for every seed, shot, fold and rule.
    """
    task = f"{config['task']}-" if "task" in config else ""
    what = f"{task}{config['shot']}shot-{config['data']['name']}{config['fold']}-s{config['test_seed']}"
    return f"eval-{what}-{identity(config)[:6]}"


def merged(asked: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """Replace settings of the training by what was asked for the test.

    Args:
        asked: resolved configuration of eval.py.
        trained: configuration of the run.

    Returns:
        The configuration of the test.

    Raises:
        FssError: if both a list and a rule to draw are given, or the task or one of its options is not known.
    """
    _check_task(asked)
    config = {
        **trained,
        "trainer": {**trained["trainer"], **_hardware(asked["trainer"])},
        "previews": asked["previews"],
    }
    config.update({k: asked[k] for k in ("workers", "test_batch_size", "feature_cache_mb") if asked[k] is not None})
    if asked.get("protocol"):
        config["protocol"] = asked["protocol"]
    config["data"] = _with_trained_list(dict(asked.get("data") or trained["data"]), trained["data"])
    for name, target in (("fold", "fold"), ("shot", "shot"), ("seed", "test_seed")):
        if asked[name] is not None:
            config[target] = asked[name]
    config["data"].update(_episodes(asked))
    if asked["task"] != TASKS[0]:  # else the configuration stays as before there were tasks, and so do folders
        config |= {"task": asked["task"], "tau": asked["tau"], "merge": asked["merge"]}
    if _is_foreign(config, trained):
        config["method"] = _without_base_labels(config)
    if asked["root"] is not None:
        config["data"]["root"] = asked["root"]
        config["data"]["source"] = {**config["data"]["source"], "root": asked["root"]}
    return config


def _with_trained_list(data: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a test's data set with the list that was trained on: no image of it may be tested."""
    given = trained.get("train_list")
    if (data["name"], data["source"]["_target_"]) != (trained["name"], trained["source"]["_target_"]) or given is None:
        return data
    return {**data, "train_list": given, "source": {**data["source"], "train_list": given}}


def _is_foreign(config: dict[str, Any], trained: dict[str, Any]) -> bool:
    """Tell whether the test has other base classes than the training."""
    return any(
        (config["fold"], config["data"].get(key)) != (trained["fold"], trained["data"].get(key))
        for key in ("name", "scheme")
    )


def _without_base_labels(config: dict[str, Any]) -> dict[str, Any]:
    """Return the method's settings for a test whose base classes its base learner does not know."""
    if "task" in config:
        raise FssError(
            "task=generalised scores the base classes of the training, which another fold or data set does not have: "
            "leave fold and data out."
        )
    method = dict(config["method"])
    return {**method, "wants": {**method.get("wants", {}), "base_labels": False}}


def _episodes(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the data set that what was asked replaces."""
    if asked["episodes"] is not None and asked["sampler"] is not None:
        raise FssError(
            f"episodes={asked['episodes']} and sampler={asked['sampler']} exclude each other: the episodes of a list "
            "are drawn already. Leave one of them out."
        )
    names = ("episodes", "test_episodes", "sampler", "min_test_images")
    changes = {name: asked[name] for name in names if asked[name] is not None}
    if asked["seed"] is not None or asked["sampler"] is not None:
        changes.setdefault("episodes", None)  # the list of the training would win over what was asked
    if asked["shot"] is not None:
        changes["test_shot"] = None  # likewise
    return changes


def _hardware(trainer: dict[str, Any]) -> dict[str, Any]:
    names = (
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "precision",
        "enable_progress_bar",
        "limit_test_batches",
    )
    return {k: trainer[k] for k in names}


def _check_task(asked: dict[str, Any]) -> None:
    for name, allowed in (("task", TASKS), ("merge", MERGES), ("seen_classes", SEEN), ("leaks", LEAKS)):
        if asked[name] not in allowed:
            raise FssError(f"{name}={asked[name]} is not known: choose one of {', '.join(allowed)}.")
    number("tau", asked["tau"], 0.0, 1.0)
    if asked["task"] == "generalised" and (asked["episodes"] is not None or asked["sampler"] is not None):
        raise FssError(
            "task=generalised draws its episodes by a rule of its own, over all validation images: leave "
            "episodes and sampler out."
        )
