"""Singular value decomposition of convolution weights: functions on tensors, no layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fss.errors import FssError


def rounded_rank(full: int, multiple: int) -> int:
    """Round a rank down to a multiple, within [1, full].

    Args:
        full: exact rank, min(Co, Ci * k * k).
        multiple: 1 keeps the exact rank; the SVF release uses 4, which truncates the stem (27 to 24).

    Returns:
        The rank to keep.

    Raises:
        FssError: if ``multiple`` is below 1.
    """
    if multiple < 1:
        raise FssError(f"rank_rounding={multiple} must be at least 1 (1 is exact, 4 is the SVF release)")
    return max(1, min(full, full // multiple * multiple))


def full_rank(weight: Tensor, groups: int = 1) -> int:
    """Return the exact rank of one group of a convolution weight.

    Args:
        weight: (Co, Ci / groups, k, k).
        groups: groups of the convolution.

    Returns:
        min(Co / groups, Ci / groups * k * k).
    """
    return min(weight.shape[0] // groups, weight[0].numel())


def decompose(weight: Tensor, rank: int, groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose a weight as W = U diag(S) V^T, group by group (SVF paper, section 3.2).

    The factorisation runs in float64: it costs seconds at start-up, and keeps the injected network equal to the
    plain one to float32 rounding.

    Args:
        weight: (Co, Ci / groups, k, k), or (Co, Ci) of linear layers.
        rank: number of singular triples to keep per group.
        groups: groups of the convolution.

    Returns:
        U (Co, R), S (groups * R), V (groups * R, Ci / groups, k, k), in the weight's type; S descends per group.
    """
    matrix = weight.detach().double().reshape(groups, weight.shape[0] // groups, -1)
    with one_thread(matrix.device):
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    U = u[:, :, :rank].reshape(weight.shape[0], rank)
    S = s[:, :rank].reshape(-1)
    V = vt[:, :rank].reshape(groups * rank, *weight.shape[1:])
    return U.to(weight).contiguous(), S.to(weight).contiguous(), V.to(weight).contiguous()


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Keep LAPACK to one thread: its SVD gains little from more and loses tenfold on shared cores (measured).

    Args:
        device: where the matrix lies; only the CPU's threads are limited.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rebuild(U: Tensor, S: Tensor, V: Tensor, groups: int = 1) -> Tensor:
    """Compose the weight W = U diag(S) V^T.

    Args:
        U: (Co, R).
        S: (groups * R).
        V: (groups * R, Ci / groups, k, k).
        groups: groups of the convolution.

    Returns:
        (Co, Ci / groups, k, k).
    """
    left = U.reshape(groups, U.shape[0] // groups, U.shape[1]) * S.reshape(groups, 1, -1)
    return (left @ V.reshape(groups, U.shape[1], -1)).reshape(U.shape[0], *V.shape[1:])
