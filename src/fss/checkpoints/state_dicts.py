"""Apply a key table in either direction; a key that matches no entry is an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fss.errors import FssError
from fss.methods.releases import KeyMap, Pairs

FACTORS = ((".vector_S", ".S"), (".conv_U.weight", ".U"), (".conv_U.bias", ".bias"), (".conv_V.weight", ".V"))
"""Suffixes of a decomposed convolution; the release keeps S as [1, R, 1, 1] and U as [Co, R, 1, 1]."""

_STATISTIC, _COUNT = ".running_var", ".num_batches_tracked"

_SHOWN = 40
"""Maximum number of names listed per kind of mismatch; a wrong backbone gives hundreds."""


def from_release(state: Mapping[str, Tensor], keymap: KeyMap) -> dict[str, Tensor]:
    """Rename a release's state dict to ours.

    Args:
        state: the release's tensors, without ``module.`` prefix.
        keymap: the method's table.

    Returns:
        Our names; factors of decomposed convolutions in our shapes. Tensors that nothing reads, and those that follow
        from the architecture, are left out.

    Raises:
        FssError: if a key matches no entry of the table, a tensor stored twice has different values, or one that
            follows from the architecture has others.
    """
    state = _without_computed(_without_copies(state, keymap.repeated), keymap.computed())
    renamed: dict[str, Tensor] = {}
    unmatched = []
    for key, value in state.items():
        if key.startswith(keymap.unused):
            continue
        name = _swap_prefix(key, keymap.pairs)
        if name is None:
            unmatched.append(key)
            continue
        for theirs, ours in FACTORS:
            if name.endswith(theirs):
                name = name.removesuffix(theirs) + ours
                value = _flat_factor(value, ours)
                break
        renamed[name] = value
    if unmatched:
        raise FssError(f"{len(unmatched)} keys belong to no known layer: {unmatched[:_SHOWN]}")
    if not keymap.counted:
        layers = [k.removesuffix(_STATISTIC) for k in renamed if k.endswith(_STATISTIC)]
        renamed |= {layer + _COUNT: torch.tensor(0) for layer in layers}
    return _with_copies(renamed, keymap.shared)


def to_release(state: Mapping[str, Tensor], keymap: KeyMap) -> dict[str, Tensor]:
    """Rename our state dict to the release's.

    Args:
        state: our tensors.
        keymap: the method's table.

    Returns:
        The release's names and shapes.

    Raises:
        FssError: if a key matches no entry of the table, or the release has one name for two different values.
    """
    state = _without_copies(state, keymap.shared)
    if not keymap.counted:
        state = {k: v for k, v in state.items() if not k.endswith(_COUNT)}
    decomposed = {k.removesuffix(".S") for k in state if k.endswith(".S")}
    pairs = tuple((ours, theirs) for theirs, ours in keymap.pairs)
    renamed: dict[str, Tensor] = {}
    unmatched = []
    for key, value in state.items():
        parent, _, leaf = key.rpartition(".")
        if parent in decomposed:
            theirs = next(t for t, o in FACTORS if o == f".{leaf}")
            value = _released_shape(value, leaf)
            key = parent + theirs
        name = _swap_prefix(key, pairs)
        if name is None:
            unmatched.append(key)
        else:
            renamed[name] = value
    if unmatched:
        raise FssError(f"{len(unmatched)} keys have no name in the release: {unmatched[:_SHOWN]}")
    return {**_with_copies(renamed, keymap.repeated), **keymap.computed()}


def ordered(names: Iterable[str], keymap: KeyMap) -> list[str]:
    """Sort names as the release's files hold them.

    Args:
        names: of the release.
        keymap: the method's table.
    """
    last = len(keymap.order)
    return sorted(names, key=lambda name: next((i for i, p in enumerate(keymap.order) if name.startswith(p)), last))


def mismatches(given: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]) -> list[str]:
    """Compare names and shapes.

    Args:
        given: name -> tensor.
        expected: name -> shape.

    Returns:
        A line for each kind of mismatch, naming the keys; empty if everything fits.
    """
    shapes = {k: tuple(v.shape) for k, v in given.items()}
    kinds = {
        "unknown": [k for k in given if k not in expected],
        "missing": [k for k in expected if k not in given],
        "other shape": [
            f"{k} {list(shapes[k])} instead of {list(expected[k])}"
            for k in expected
            if k in shapes and shapes[k] != tuple(expected[k])
        ],
    }
    return [f"{kind} ({len(found)}): {_listed(found)}" for kind, found in kinds.items() if found]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f", and {more} more" if more > 0 else "")


def _swap_prefix(key: str, pairs: Pairs) -> str | None:
    for old, new in pairs:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return None


def _with_copies(state: dict[str, Tensor], copies: Pairs) -> dict[str, Tensor]:
    """Add the second name of every copied tensor; ``copies`` holds prefixes (copy, original)."""
    for copy, original in copies:
        state |= {copy + k.removeprefix(original): v for k, v in state.items() if k.startswith(original)}
    return state


def _without_copies(state: Mapping[str, Tensor], copies: Pairs) -> Mapping[str, Tensor]:
    """Drop the second names, after checking that they hold the same values as the originals."""
    dropped = set()
    for key, value in state.items():
        original = _swap_prefix(key, copies)
        if original is None:
            continue
        if original not in state:
            raise FssError(f"{key} is a copy of {original}, which is missing")
        if not value.is_meta and not torch.equal(value, state[original]):
            raise FssError(f"{key} and {original} must hold the same values, and do not")
        dropped.add(key)
    return {k: v for k, v in state.items() if k not in dropped}


def _without_computed(state: Mapping[str, Tensor], computed: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Drop tensors that follow from the architecture, after checking that they hold those values."""
    for key, value in computed.items():
        if key in state and not torch.equal(state[key].to(value.dtype), value):
            raise FssError(f"{key} must hold the values that follow from the architecture, and does not")
    return {k: v for k, v in state.items() if k not in computed}


def _flat_factor(value: Tensor, factor: str) -> Tensor:
    if factor == ".S":
        return value.reshape(-1)
    return value.flatten(1) if factor == ".U" else value


def _released_shape(value: Tensor, factor: str) -> Tensor:
    if factor == "S":
        return value.reshape(1, -1, 1, 1)
    return value[..., None, None] if factor == "U" else value
