"""The rules that draw episodes of novel classes; NAME.py of this folder holds that of ``data.sampler=NAME``."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, Protocol

from fss.data.episodes.index import ClassIndex
from fss.data.episodes.options import check_choice, rule_names
from fss.data.episodes.stateless import DrawSource


class NovelRule(Protocol):
    """A class that draws episodes of novel classes, and bears the name of its file as ``sampler``."""

    def novel(self, index: ClassIndex, shot: int, seed: int, length: int) -> DrawSource:
        """Return the episodes.

        Args:
            index: queries and class lists.
            shot: supports per episode.
            seed: seed of the stream.
            length: number of episodes.
        """
        ...


def rule(name: str) -> NovelRule:
    """Look up a rule.

    Args:
        name: value of ``data.sampler``.

    Raises:
        DataError: if there is none of this name.
    """
    check_choice("sampler", name, rule_names())
    module = import_module(f"{__package__}.{name}")
    classes: list[Any] = [c for c in vars(module).values() if inspect.isclass(c) and vars(c).get("sampler") == name]
    found: NovelRule = classes[0]
    return found
