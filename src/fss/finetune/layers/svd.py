"""Singular value decomposition of convolution weights: functions on tensors, no layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from fss.errors import FssError

Item = TypeVar("Item")
Made = TypeVar("Made")

_MOST_THREADS = 8  # each holds a few float64 copies of a weight, at most 100 MB


def rounded_rank(full: int, multiple: int) -> int:
    """Round a rank down to a multiple, clipped to [1, full].

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

    The SVD runs in float64, which costs seconds at start-up and keeps the injected network equal to the plain one up
    to float32 rounding. The signs of singular vectors are arbitrary; here the largest entry of every column of U is
    positive, so that rotated singular spaces do not depend on the LAPACK implementation.

    Args:
        weight: (Co, Ci / groups, k, k), or (Co, Ci) of linear layers.
        rank: number of singular triples to keep per group.
        groups: groups of the convolution.

    Returns:
        U (Co, R), S (groups * R), V (groups * R, Ci / groups, k, k), in the weight's type; S descends per group.
    """
    matrix = weight.detach().double().reshape(groups, weight.shape[0] // groups, -1)
    with one_thread(matrix.device):
        u, s, vt = _svd(matrix)
    signs = u.gather(1, u.abs().argmax(dim=1, keepdim=True)).sign()
    u, vt = u * signs, vt * signs.transpose(1, 2)
    U = u[:, :, :rank].reshape(weight.shape[0], rank)
    S = s[:, :rank].reshape(-1)
    V = vt[:, :rank].reshape(groups * rank, *weight.shape[1:])
    return U.to(weight).contiguous(), S.to(weight).contiguous(), V.to(weight).contiguous()


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose (groups, m, n); wide matrices are transposed, which LAPACK decomposes up to three times as fast."""
    if matrix.shape[1] >= matrix.shape[2]:
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        return u, s, vt
    v, s, ut = torch.linalg.svd(matrix.transpose(1, 2).contiguous(), full_matrices=False)
    return ut.transpose(1, 2), s, v.transpose(1, 2)


def side_by_side(work: Callable[[Item], Made], items: Sequence[Item], device: torch.device) -> list[Made]:
    """Call a function for every item, in parallel with one thread each, because LAPACK alone uses one core.

    Args:
        work: the function; must depend only on its item.
        items: its arguments.
        device: device of the matrices; calls run one at a time unless it is the CPU.

    Returns:
        The results in the order of the items, independent of the number of threads.
    """
    threads = min(torch.get_num_threads(), len(items), _MOST_THREADS)
    if device.type != "cpu" or threads < 2:
        return [work(item) for item in items]
    with one_thread(device), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, items))


class _Limit:
    """Number of callers inside :func:`one_thread`, and the thread limit before the first one entered."""

    lock, inside, before = Lock(), 0, 0


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Limit LAPACK to one thread: its SVD gains little from more and is ten times slower on shared cores (measured).

    Several threads may be inside at the same time; the first one sets the limit, the last one restores it.

    Args:
        device: device of the matrix; only CPU threads are limited.
    """
    if device.type != "cpu":
        yield
        return
    with _Limit.lock:
        if _Limit.inside == 0:
            _Limit.before = torch.get_num_threads()
            torch.set_num_threads(1)
        _Limit.inside += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.inside -= 1
            if _Limit.inside == 0:
                torch.set_num_threads(_Limit.before)


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
