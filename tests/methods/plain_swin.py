"""A Swin transformer from tensors named as in its official code: attention over the whole map, masked by windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def block_outputs(
    state: Mapping[str, Tensor], image: Tensor, depths: Sequence[int], heads: Sequence[int], window: int
) -> list[list[Tensor]]:
    """Return the output of every block, before patch merging and without a last norm, (N, C, h, w), by layer."""
    x = F.conv2d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4)
    x = _norm(state, "patch_embed.norm", x.permute(0, 2, 3, 1))
    found: list[list[Tensor]] = []
    for layer, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        found.append([])
        for block in range(depth):
            name = f"layers.{layer}.blocks.{block}"
            shift = window // 2 if block % 2 and x.shape[1] > window else 0
            x = x + _attention(state, name, _norm(state, f"{name}.norm1", x), count, min(window, x.shape[1]), shift)
            hidden = F.gelu(_linear(state, f"{name}.mlp.fc1", _norm(state, f"{name}.norm2", x)))
            x = x + _linear(state, f"{name}.mlp.fc2", hidden)
            found[-1].append(x.permute(0, 3, 1, 2))
        if layer + 1 < len(depths):
            quarters = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            merged = _norm(state, f"layers.{layer}.downsample.norm", torch.cat(quarters, dim=-1))
            x = merged @ state[f"layers.{layer}.downsample.reduction.weight"].T
    return found


def _attention(state: Mapping[str, Tensor], name: str, x: Tensor, heads: int, window: int, shift: int) -> Tensor:
    """Attend over all positions of the map at once: a mask keeps those that share a window and do not wrap around."""
    batch, side, _, channels = x.shape
    q, k, v = _linear(state, f"{name}.attn.qkv", x).reshape(batch, side * side, 3, heads, -1).permute(2, 0, 3, 1, 4)
    rows, columns = torch.arange(side * side) // side, torch.arange(side * side) % side
    down, right = rows[:, None] - rows, columns[:, None] - columns
    # A window that the shift cuts at the border holds no positions of the opposite border.
    same = (_window(rows, shift, window)[:, None] == _window(rows, shift, window)) & (
        _window(columns, shift, window)[:, None] == _window(columns, shift, window)
    )
    table = state[f"{name}.attn.relative_position_bias_table"].reshape(2 * window - 1, 2 * window - 1, heads)
    near = same & (down.abs() < window) & (right.abs() < window)
    bias = table[down.clamp(1 - window, window - 1) + window - 1, right.clamp(1 - window, window - 1) + window - 1]
    scores = q @ k.mT * (channels // heads) ** -0.5 + bias.permute(2, 0, 1)
    weights = scores.masked_fill(~near, float("-inf")).softmax(dim=-1)
    joined = (weights @ v).transpose(1, 2).reshape(batch, side, side, channels)
    return _linear(state, f"{name}.attn.proj", joined)


def _window(place: Tensor, shift: int, window: int) -> Tensor:
    """Return the number of the window of a place along one side; the first one has only ``shift`` places, if any."""
    return (place - shift).div(window, rounding_mode="floor")


def _linear(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)
