"""What determines a run's numbers, as a hash and as a name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from fss.config.backbone_facts import RELEASED_VIEW, without_added
from fss.episode_protocol import EpisodeProtocol

# Keys that do not determine a run's numbers: names, paths, loggers, hardware and display.
_FREE = (
    "hydra",
    "group",
    "overwrite",
    "leaks",  # what lists hold decides
    "resume",
    "checkpoint_minutes",
    "previews",
    "workers",
    "test_batch_size",
    "feature_cache_mb",
    "logger",
    "recording",
    "data.root",
    "data.image_cache_mb",
    "data.source",
    "data.base",  # the chosen values stand in data, too
    "method.base_learner.checkpoint",  # its identity stands beside it
    "method.base_learner.train_if_missing",
    "method.base_learner.overrides",
    "method.base_learner.built",
    "backbone.sizes",  # what its class says
    "backbone.support_view",  # the method's stands beside it
    "finetune.memory",
    "trainer._target_",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
)
_LISTS = ("train_list", "val_list")
"""Paths whose content stands in ``data.content``."""


def determining(config: dict[str, Any]) -> dict[str, Any]:
    """Keep of a resolved configuration what determines a run's numbers.

    Args:
        config: resolved, plain values.

    Returns:
        A copy without loggers, hardware, display, and paths whose content stands beside them (see
        :mod:`fss.config.content`).
    """
    kept: dict[str, Any] = json.loads(json.dumps(config, default=str))
    for dotted in _FREE:
        *parents, leaf = dotted.split(".")
        node: Any = kept
        for parent in parents:
            node = node.get(parent, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node.pop(leaf, None)
    data, backbone = kept.setdefault("data", {}), without_added(kept.get("backbone", {}))
    if "backbone" in kept:
        kept["backbone"] = backbone
    if kept.get("method", {}).get("support_view") == RELEASED_VIEW:  # what there was before the option
        del kept["method"]["support_view"]
    if kept.get("finetune", {}).get("qkv") == "one":  # runs from before the option lack it
        del kept["finetune"]["qkv"]
    finetune = kept.get("finetune", {})
    if (finetune.get("name"), finetune.get("norm_mode")) == ("full", "eval"):  # likewise
        del finetune["norm_mode"]
    if data.get("min_test_images") is None:  # runs from before the option lack it
        data.pop("min_test_images", None)
    if not kept.get("recipe", {}).get("optimizers", True):  # likewise
        del kept["recipe"]["optimizers"]
    protocol, suite = kept.pop("protocol", None) or {}, asdict(EpisodeProtocol())
    changed = {k: protocol[k] for k, value in suite.items() if protocol.get(k, value) != value}
    if changed:  # its name does not matter, and runs from before the group lack it
        kept["protocol"] = changed
    source = config.get("data", {}).get("source") or {}
    if "content" in data:
        data = kept["data"] = {k: v for k, v in data.items() if k not in _LISTS}
    paths = ("root", "progress", *(_LISTS if "content" in data else ()))
    data["reader"] = {k: v for k, v in source.items() if k not in paths}
    if "episodes_content" in data:
        data.pop("episodes", None)
    if "weights_content" in backbone:
        backbone.pop("weights", None)
    return kept


def identity(config: dict[str, Any]) -> str:
    """Hash what determines a run's numbers.

    Args:
        config: resolved, plain values.

    Returns:
        64 hexadecimal digits, equal for runs that must give equal numbers on the same code.
    """
    text = json.dumps(determining(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def slug(config: dict[str, Any]) -> str:
    """Name a run: readable parts, then six digits of its identity.

    Args:
        config: resolved, plain values.

    Returns:
        A name without characters that need quoting.
    """
    parts = [
        config["method"]["name"],
        config["backbone"]["name"],
        config["finetune"]["name"],
        f"{config['data']['name']}{config['fold']}",
        f"{config['shot']}shot",
        f"s{config['seed']}",
    ]
    return "-".join([*parts, identity(config)[:6]])
