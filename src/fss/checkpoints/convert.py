"""Apply a key table, in either direction; a key without a place is an error."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fss.checkpoints.keymaps import FACTORS, KeyMap
from fss.errors import FssError


def from_release(state: Mapping[str, Tensor], keymap: KeyMap) -> dict[str, Tensor]:
    """Rename a release's state dict to ours.

    Args:
        state: the release's tensors, without ``module.`` prefix.
        keymap: the method's table.

    Returns:
        Our names; factors of decomposed convolutions in our shapes.

    Raises:
        FssError: if a key fits no entry of the table.
    """
    renamed: dict[str, Tensor] = {}
    strangers = []
    for key, value in state.items():
        if key.startswith(keymap.unused):
            continue
        name = _swap_prefix(key, keymap.pairs)
        if name is None:
            strangers.append(key)
            continue
        for theirs, ours in FACTORS:
            if name.endswith(theirs):
                name = name.removesuffix(theirs) + ours
                value = _flat_factor(value, ours)
                break
        renamed[name] = value
    if strangers:
        raise FssError(f"{len(strangers)} keys belong to no known layer: {strangers[:8]}")
    return renamed


def to_release(state: Mapping[str, Tensor], keymap: KeyMap) -> dict[str, Tensor]:
    """Rename our state dict to the release's.

    Args:
        state: our tensors.
        keymap: the method's table.

    Returns:
        The release's names and shapes.

    Raises:
        FssError: if a key fits no entry of the table.
    """
    decomposed = {k.removesuffix(".S") for k in state if k.endswith(".S")}
    pairs = tuple((ours, theirs) for theirs, ours in keymap.pairs)
    renamed: dict[str, Tensor] = {}
    strangers = []
    for key, value in state.items():
        parent, _, leaf = key.rpartition(".")
        if parent in decomposed:
            theirs = next(t for t, o in FACTORS if o == f".{leaf}")
            value = _released_shape(value, leaf)
            key = parent + theirs
        name = _swap_prefix(key, pairs)
        if name is None:
            strangers.append(key)
        else:
            renamed[name] = value
    if strangers:
        raise FssError(f"{len(strangers)} keys have no name in the release: {strangers[:8]}")
    return renamed


def _swap_prefix(key: str, pairs: tuple[tuple[str, str], ...]) -> str | None:
    for old, new in pairs:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return None


def _flat_factor(value: Tensor, factor: str) -> Tensor:
    if factor == ".S":
        return value.reshape(-1)
    return value.flatten(1) if factor == ".U" else value


def _released_shape(value: Tensor, factor: str) -> Tensor:
    if factor == "S":
        return value.reshape(1, -1, 1, 1)
    return value[..., None, None] if factor == "U" else value
