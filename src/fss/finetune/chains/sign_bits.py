"""Yes-or-no maps at one bit per element: what a ReLU's backward pass needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Multiplying eight bytes of 0 or 1, read as one number, by this moves them into the eight bits of the highest byte.
_GATHER = 0x0102040810204080
_HIGHEST = 56


def pack(mask: Tensor) -> Tensor:
    """Put eight truth values into a byte.

    Args:
        mask: bool, any shape.

    Returns:
        bits: uint8, (ceil(numel / 8)), in the order of memory.
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
        shape: of the mask.
        strides: of the mask.

    Returns:
        mask: 0 or 1 as uint8.
    """
    flat = _table(bits.device).index_select(0, bits.int()).view(torch.uint8)
    return flat.as_strided(tuple(shape), tuple(strides))


def _in_memory_order(mask: Tensor) -> Tensor:
    """Flatten without moving anything, if the elements lie densely in any order of dimensions."""
    order = sorted(range(mask.dim()), key=lambda d: (mask.stride(d), mask.shape[d]), reverse=True)
    dense = mask.permute(order)
    if not dense.is_contiguous():
        raise ValueError(f"the elements of a map of strides {mask.stride()} do not lie densely")
    return dense.reshape(-1)


@cache
def _table(device: torch.device) -> Tensor:
    """Byte -> its eight bits as bytes, read as one number."""
    shifts = torch.arange(8, dtype=torch.uint8)
    bytes_ = (torch.arange(256, dtype=torch.uint8)[:, None] >> shifts) & 1
    # The lowest byte of a number comes first in memory, and the product above put it into the highest bit.
    order = bytes_.flip(1) if _first_is_highest() else bytes_
    return order.contiguous().view(torch.int64).view(-1).to(device)


def _first_is_highest() -> bool:
    one = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0], dtype=torch.uint8).view(torch.int64)
    return int(((one * _GATHER) >> _HIGHEST).to(torch.uint8)) == 128
