"""Boolean maps packed to one bit per element, for the backward pass of a ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Multiplying eight 0/1 bytes, read as one integer, by this constant gathers them in the bits of the highest byte.
_GATHER = 0x0102040810204080
_HIGHEST = 56


def pack(mask: Tensor) -> Tensor:
    """Pack eight booleans into a byte.

    Args:
        mask: bool, any shape.

    Returns:
        bits: uint8, (ceil(numel / 8)), in memory order.
    """
    flat = _in_memory_order(mask)
    rest = -flat.numel() % 8
    if rest:
        flat = F.pad(flat, (0, rest))
    return ((flat.view(torch.int64) * _GATHER) >> _HIGHEST).to(torch.uint8)


def unpack(bits: Tensor, shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Undo :func:`pack`.

    Args:
        bits: uint8, (ceil(numel / 8)).
        shape: shape of the mask.
        strides: strides of the mask.

    Returns:
        mask: 0 or 1 as uint8.
    """
    flat = _table(bits.device).index_select(0, bits.int()).view(torch.uint8)
    return flat.as_strided(tuple(shape), tuple(strides))


def _in_memory_order(mask: Tensor) -> Tensor:
    """Flatten without copying; the elements must be dense in memory, in any order of dimensions."""
    order = sorted(range(mask.dim()), key=lambda d: (mask.stride(d), mask.shape[d]), reverse=True)
    dense = mask.permute(order)
    if not dense.is_contiguous():
        raise ValueError(f"the elements of a map of strides {mask.stride()} do not lie densely")
    return dense.reshape(-1)


@cache
def _table(device: torch.device) -> Tensor:
    """Return a table: byte -> its eight bits as bytes, read as one integer."""
    shifts = torch.arange(8, dtype=torch.uint8)
    bytes_ = (torch.arange(256, dtype=torch.uint8)[:, None] >> shifts) & 1
    # The product puts the byte that is first in memory into the lowest bit on little-endian machines.
    order = bytes_.flip(1) if _first_is_highest() else bytes_
    return order.contiguous().view(torch.int64).view(-1).to(device)


def _first_is_highest() -> bool:
    one = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0], dtype=torch.uint8).view(torch.int64)
    return int(((one * _GATHER) >> _HIGHEST).to(torch.uint8)) == 128
