"""Refuse options that nothing reads: keys that ``+`` and ``++`` would add, and ``~`` would take away, in silence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fss.commands import program
from fss.config.known_keys import OWN, ROW, Known
from fss.errors import FssError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def refuse_unknown(cfg: DictConfig, words: Sequence[str], sweeping: bool) -> None:
    """Refuse options that add a key which nothing reads, or take away one which every run needs.

    Known are the keys of every file that could be chosen in the groups in use, what stands below an empty mapping of
    such a file, and arguments of the classes that the configuration names. Options without prefix are Hydra's to check.

    Args:
        cfg: composed configuration, with Hydra's own node.
        words: options as typed.
        sweeping: it is the configuration of a sweep, whose runs may choose other files.

    Raises:
        FssError: on the first such option.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(words))
    added = [one for one in parsed if one.is_add() or one.is_force_add()]
    removed = [one for one in parsed if one.is_delete()]
    if not added and not removed:
        return
    swept = {one.key_or_group for one in parsed if one.is_sweep_override()}
    rows = "rows" in (cfg.hydra.sweeper or {})
    known = Known(cfg, open_choices=sweeping and (rows or bool(swept & cfg.hydra.runtime.choices.keys())))
    for one in added:
        if sweeping and rows and one.key_or_group == ROW:
            continue
        for key in _keys(one):
            _check_added(one, key, known)
    for one in removed:
        _check_removed(one, known)


def explain_unknown(cfg: DictConfig, words: Sequence[str]) -> None:
    """Name the option that a composition failed for, if it failed for a key that nothing reads.

    Args:
        cfg: composed without the options of keys, with Hydra's own node.
        words: options as typed.

    Raises:
        FssError: on the first option of an unknown key, whatever its prefix.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    known = Known(cfg, open_choices=False)
    for one in OverridesParser.create().parse_overrides(list(words)):
        if one.key_or_group != ROW or not one.is_add():
            for key in _keys(one):
                _check_added(one, key, known)


def choosing(words: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Keep the options that choose files, and Hydra's own.

    Args:
        words: options as typed.
        groups: names of the groups.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(words))
    kept = [one for one in parsed if one.key_or_group in groups or one.key_or_group.startswith("hydra")]
    return [str(one.input_line) for one in kept if not one.is_delete()]


def _keys(one: Override) -> list[str]:
    """Return the dotted keys that an option sets; a mapping sets one for each of its values."""

    def walk(value: Any, key: str) -> Iterator[str]:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from walk(inner, f"{key}.{name}")
        else:
            yield key

    if one.package is not None:  # a group that goes elsewhere
        return [one.package]
    value = None if one.is_sweep_override() else one.value()
    return list(walk(value, one.key_or_group))


def _check_added(one: Override, key: str, known: Known) -> None:
    word = str(one.input_line)
    if known.holds(key):
        return
    if key == ROW:
        raise FssError(
            f"{word}: +{ROW} selects rows of a sweep over rows by name, as {program()} -m experiment=table05 "
            f"+{ROW}=t05r06. Without -m, or with an experiment of one run, leave it out."
        )
    group = key.partition(".")[0]
    if group in known.absent:
        raise FssError(f"{word} is an option of the group {group}, which is not chosen: add {group}=NAME, or leave it.")
    above = known.target_above(key)
    if above and key.rpartition(".")[2] in OWN.get(above, ()):
        raise FssError(f"{word} is not for options to choose: fss itself gives {key.rpartition('.')[2]}. Leave it out.")
    elsewhere = known.elsewhere(key)
    near = "" if elsewhere else known.near(key)
    raise FssError(
        f"{word} names {key}, which nothing reads{elsewhere}. "
        f"{f'Do you mean {near}? ' if near else known.beside(key)}All options: {program(known.program)} --help"
    )


def _check_removed(one: Override, known: Known) -> None:
    """Allow to take away arguments, which have defaults, and what is Hydra's; everything else is needed."""
    key = one.key_or_group
    if key.startswith("hydra") or known.target_above(key) == key.rpartition(".")[0] != "" or known.is_own(key):
        return
    raise FssError(
        f"{one.input_line} would take away {key}, which every run needs: give it a value, or leave the option out. "
        f"Only arguments of a class can be taken away, as ~recipe.optimizer.momentum. All options: "
        f"{program(known.program)} --help"
    )
