"""Sweeps over a list of rows: each row is written as on a command line, and every row runs on the same grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from hydra.core.override_parser.types import Override

from fss.errors import FssError

Parser = Callable[[list[str]], list[Override]]
Choices = dict[str, list[str]]

ROW = "+row"
"""Word on the command line that selects rows by name; not an option of a run."""


def expand(
    rows: Mapping[str, str], grid: Mapping[str, str], arguments: Sequence[str], parse: Parser
) -> list[list[str]]:
    """List the command lines of a sweep.

    Args:
        rows: name -> options as typed, e.g. ``finetune=svf finetune.stages=[3,4]``.
        grid: option -> values that every row runs with, e.g. ``fold: 0,1,2,3``.
        arguments: options of the user. An option of the grid replaces the grid's values; an option that rows set, and
            ``+row``, selects rows; any other option goes into every run.
        parse: Hydra's override parser.

    Returns:
        One list of options per run, row by row.

    Raises:
        FssError: no row is left, or an option is swept over an interval.
    """
    user_options = _choices(parse(list(arguments)))
    named = {name: _choices(parse(text.split())) for name, text in rows.items()}
    chosen = _select_rows(named, user_options)
    set_by_rows = {key for options in named.values() for key in options} | {ROW}
    common = _choices(parse([f"{key}={value}" for key, value in grid.items()])) | {
        key: words for key, words in user_options.items() if key not in set_by_rows
    }
    runs = []
    for options in chosen.values():
        merged = {**options, **common}
        kept = [[w for w in words if w in user_options.get(key, words)] for key, words in merged.items()]
        runs += [list(words) for words in itertools.product(*kept)]
    return runs


def _choices(overrides: Sequence[Override]) -> Choices:
    """Return option -> its words, several if it is swept; the last occurrence of an option counts."""
    found: Choices = {}
    for override in overrides:
        key = _as_selected(override)
        if not override.is_sweep_override():
            value = override.get_value_element_as_str()
            found[key] = [key if override.is_delete() and not value else f"{key}={value}"]
        elif override.is_discrete_sweep():
            found[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise FssError(f"{override.input_line}: give a list of values, as {key}=1,2,3; intervals have no end.")
    return found


def _as_selected(override: Override) -> str:
    """Return the key as rows and grid write it: ``++`` before an option that a file sets changes nothing."""
    key = str(override.get_key_element())
    bare = key.lstrip("+")
    return ROW if bare == ROW.lstrip("+") else key.replace("++", "", 1) if key.startswith("++") else key


def _select_rows(named: Mapping[str, Choices], given: Choices) -> dict[str, Choices]:
    """Keep the rows that the user's options select."""
    chosen = dict(named)
    for key, words in given.items():
        if key == ROW:
            wanted = {word.partition("=")[2] for word in words}
            existing, remaining = sorted(named), {name: o for name, o in chosen.items() if name in wanted}
            missing = sorted(wanted - set(named))
        elif any(key in options for options in named.values()):
            existing = sorted({w.partition("=")[2] for options in named.values() for w in options.get(key, ())})
            remaining = {name: o for name, o in chosen.items() if set(words) & set(o.get(key, ()))}
            missing = sorted({word.partition("=")[2] for word in words} - set(existing))
        else:
            continue
        if missing or not remaining:
            others = "" if missing else " together with the other options"
            raise FssError(
                f"{','.join(words)} chooses no row of this sweep{others}: its rows have {key} {', '.join(existing)}. "
                f"To run the rows with another {key}, copy the experiment's file and change the rows."
            )
        chosen = remaining
    return chosen
