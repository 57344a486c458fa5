"""Sinusoidal codes of positions: along an axis (arXiv 1706.03762) and on a grid with padding (arXiv 2005.12872)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BASE = 10000.0
"""Longest wavelength over 2 pi (released constant of both codes)."""
GRID_EPS = 1e-6
"""Added to the number of cells along an axis (released constant)."""


def _frequencies(channels: int, device: torch.device) -> Tensor:
    """Return 10000^(-2i / channels) for i = 0 .. channels/2 - 1, float64."""
    even = torch.arange(0, channels, 2, dtype=torch.float64, device=device)
    return torch.exp(even * (-math.log(BASE) / channels))


def _interleaved(angles: Tensor) -> Tensor:
    """Return sine and cosine of angles (..., n) in turn, (..., 2n)."""
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def sine_codes(positions: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Compute the codes of the positions 0, 1, ...

    Args:
        positions: their number N.
        channels: values per code C, an even number.
        device: of the result.

    Returns:
        sin(n f_i) in channel 2i and cos(n f_i) in channel 2i + 1, with f_i = 10000^(-2i / C); (N, C), float64.
    """
    at = torch.arange(positions, dtype=torch.float64, device=device)
    return _interleaved(at[:, None] * _frequencies(channels, at.device))


def sine_grid(padded: Tensor, channels: int) -> Tensor:
    """Compute the codes of the cells of a grid, of which some lie in the padding of the image.

    A coordinate is the number of unpadded cells up to this one, in shares of all along the axis, times 2 pi.

    Args:
        padded: true in the padding, (B, h, w).
        channels: values per code C, a multiple of 4.

    Returns:
        Codes of the row in the first half of the channels and of the column in the second, each as in
        :func:`sine_codes`; (B, C, h, w), float64.
    """
    inside = (~padded).to(torch.float64)
    halves = []
    for axis in (1, 2):
        counted = inside.cumsum(dim=axis)
        last = counted.narrow(axis, counted.shape[axis] - 1, 1)
        share = counted / (last + GRID_EPS) * (2 * math.pi)
        halves.append(_interleaved(share[..., None] * _frequencies(channels // 2, padded.device)))
    return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)
