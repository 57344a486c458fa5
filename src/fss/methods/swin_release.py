"""Names of a Swin transformer in its official code, and the tables and masks that this code stores beside weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fss.methods.releases import Pairs

MASKED = -100.0
"""What the official code adds to the attention between positions that a shift brought together."""


def swin(prefix: str) -> Pairs:
    """Return the names of a Swin in the official code, beside those of timm's as ``TimmBackbone`` holds it.

    The official code merges patches at the end of a layer, timm at the start of the next one.

    Args:
        prefix: what stands before them, such as ``backbone.``.
    """
    merging = tuple(
        (f"{prefix}layers.{i}.downsample.", f"backbone.layer{i + 2}.0.layers_{i + 1}.downsample.") for i in range(3)
    )
    layers = tuple((f"{prefix}layers.{i}.", f"backbone.layer{i + 1}.0.layers_{i}.") for i in range(4))
    return ((f"{prefix}patch_embed.", "backbone.layer0.0.patch_embed."), *merging, *layers)


def swin_order(prefix: str, depths: Sequence[int]) -> tuple[str, ...]:
    """Return prefixes of names in the order in which the official code stores tensors, buffers of a module first.

    Args:
        prefix: what stands before the names.
        depths: blocks per layer.
    """
    attention = [
        f"attn.{name}" for name in ("relative_position_bias_table", "relative_position_index", "qkv.", "proj.")
    ]
    within = ["attn_mask", "norm1.", *attention, "norm2.", "mlp."]
    names = ["patch_embed."]
    for layer, depth in enumerate(depths):
        names += [f"layers.{layer}.blocks.{block}.{name}" for block in range(depth) for name in within]
        names += [f"layers.{layer}.downsample.{name}." for name in ("reduction", "norm")]
    return tuple(f"{prefix}{name}" for name in [*names, "norm.", "head."])


def stored_tables(prefix: str, depths: Sequence[int], side: int, window: int) -> dict[str, Tensor]:
    """Compute what the official code stores of every block and timm does not: no value of it is learned.

    Args:
        prefix: what stands before the names.
        depths: blocks per layer.
        side: positions along a side of the first layer's map, halved by every further layer.
        window: positions along a side of a window; a map that is not larger is one window, which is not shifted.

    Returns:
        ``attn.relative_position_index`` of every block, and ``attn_mask`` of every second one where windows are
        shifted.
    """
    found: dict[str, Tensor] = {}
    for layer, depth in enumerate(depths):
        here = side // 2**layer
        size = min(window, here)
        for block in range(depth):
            name = f"{prefix}layers.{layer}.blocks.{block}."
            found[f"{name}attn.relative_position_index"] = relative_positions(size)
            if block % 2 and here > window:
                found[f"{name}attn_mask"] = shift_mask(here, size, size // 2)
    return found


def relative_positions(window: int) -> Tensor:
    """Return the row in the table of biases of every pair of positions in a window.

    Args:
        window: positions along a side, M.

    Returns:
        (M M, M M), whole numbers: (rows apart + M - 1) (2 M - 1) + columns apart + M - 1, the first position minus the
        second one.
    """
    places = torch.arange(window * window)
    rows, columns = places // window, places % window
    apart = rows[:, None] - rows[None] + window - 1
    return apart * (2 * window - 1) + columns[:, None] - columns[None] + window - 1


def shift_mask(side: int, window: int, shift: int) -> Tensor:
    """Return what is added to the attention in shifted windows.

    A shift is cyclic: the last windows hold positions of opposite borders, which do not attend to each other.

    Args:
        side: positions along a side of the map, a multiple of ``window``.
        window: positions along a side of a window, M.
        shift: by how many positions the map is rolled up and to the left.

    Returns:
        (windows, M M, M M): 0 within a region, -100 between regions.
    """
    place = torch.arange(side)
    region = (place >= side - window).long() + (place >= side - shift).long()
    regions = 3 * region[:, None] + region[None]
    count = side // window
    windows = regions.reshape(count, window, count, window).transpose(1, 2).reshape(count * count, window * window)
    return (windows[:, :, None] != windows[:, None]).float() * MASKED
