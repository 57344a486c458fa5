"""What the files behind a configuration hold: data set, weights and episode list, as hashes that its identity needs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from cachetools import TTLCache, cached

from fss.backbones.weight_files import RECORDS, locate
from fss.data.reading.derived_files import content_hash
from fss.errors import FssError
from fss.instantiate import Node

Config = dict[str, Any]

DATA, WEIGHTS, EPISODES = "content", "weights_content", "episodes_content"
"""Keys of the hashes: in ``data``, in ``backbone``, and in ``data`` again."""

_SECONDS = 5.0
"""Time for which the hash of a data set is kept: a sweep of hundreds of runs asks again and again."""


def with_content(config: Config) -> Config:
    """Add the hashes of what a configuration names by path, so that equal options with other files are told apart.

    Args:
        config: resolved, plain values.

    Returns:
        A copy with ``data.content``, ``data.episodes_content`` and ``backbone.weights_content``, each where it applies
        and the files are there. Where they are missing the run fails later, with an error of its own.
    """
    changed = with_data_content(config)
    _put(changed["backbone"], WEIGHTS, weights_content(changed["backbone"]))
    return changed


def with_data_content(config: Config) -> Config:
    """Add the hashes of the data alone, for the test of a checkpoint: its weights are part of the file.

    Args:
        config: resolved, plain values.

    Returns:
        A copy with ``data.content`` and ``data.episodes_content``.
    """
    changed = copy.deepcopy(config)
    _put(changed["data"], DATA, data_content(changed["data"]))
    _put(changed["data"], EPISODES, _of_file(changed["data"].get("episodes")))
    return changed


def data_content(node: Node) -> str | None:
    """Hash a data set.

    Args:
        node: the data group.

    Returns:
        64 hexadecimal digits; None if the data set is missing or damaged.
    """
    try:
        return _content(json.dumps(node["source"], sort_keys=True, default=str), node["source"])
    except FssError:
        return None


@cached(TTLCache(maxsize=16, ttl=_SECONDS), key=lambda text, node: text)
def _content(text: str, node: Node) -> str:
    from fss.config.source import build_source  # reads images, which a wrong option need not wait for
    from fss.data.sources.content import content_id

    return content_id(build_source({"source": node}))


def weights_content(node: Node) -> str | None:
    """Hash the pretrained weights of a backbone.

    Args:
        node: the backbone group.

    Returns:
        The digits that a download is checked by, or the file's SHA-256; None without weights or without the file.
    """
    weights = str(node.get("weights"))
    record = RECORDS.get((str(node.get("name")), str(node.get("stem", ""))))
    if weights != "imagenet":
        return _of_file(weights)
    if record is None:
        return None
    return record.sha256_prefix or _of_file(locate(record))


def _put(node: Config, name: str, value: str | None) -> None:
    node.pop(name, None)
    if value is not None:
        node[name] = value


def _of_file(path: str | Path | None) -> str | None:
    file = None if path is None else Path(path).expanduser()
    try:
        return None if file is None or not file.is_file() else content_hash(file)
    except (FssError, OSError):
        return None
