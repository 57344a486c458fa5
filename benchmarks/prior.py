"""Largest tensor that the prior mask needs at 641 px, and the plain form: ``python -m benchmarks.prior``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.rows import Row
from fss.nn.prior import EPS, prior_mask
from fss.nn.resize import up

SIZE, CELLS, CHANNELS, EPISODES = 641, 81, 512, 2
"""Side of the images, of the feature map, and VGG-16's channels."""


class _Largest(TorchDispatchMode):
    """Remembers the bytes of the largest storage that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, Tensor):
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return result


def plain(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Compute the prior with the matrix of all pairs; arguments and result as of :func:`fss.nn.prior.prior_mask`."""
    n, _, h, w = query.shape
    s, q = (support * up(mask, (support.shape[2], support.shape[3]))).flatten(2), query.flatten(2)
    pairs = s.norm(dim=1)[:, :, None] * q.norm(dim=1)[:, None] + EPS
    best = (torch.bmm(s.transpose(1, 2), q) / pairs).amax(dim=1)
    low, high = best.amin(dim=1, keepdim=True), best.amax(dim=1, keepdim=True)
    return ((best - low) / (high - low + EPS)).view(n, 1, h, w)


def largest(form: Callable[[Tensor, Tensor, Tensor], Tensor], *given: Tensor) -> tuple[int, Tensor]:
    """Return the bytes of the largest tensor that a form makes or copies, and its result."""
    watch = _Largest()
    with torch.no_grad(), watch:
        result = form(*given)
    return watch.bytes, result


def rows() -> list[Row]:
    """Compare the chunked search with the plain matrix.

    Returns:
        The line of the table.

    Raises:
        RuntimeError: if the two forms differ.
    """
    torch.manual_seed(0)
    query, support = (torch.rand(EPISODES, CHANNELS, CELLS, CELLS) for _ in range(2))
    mask = torch.zeros(EPISODES, 1, SIZE, SIZE)
    mask[..., 160:480, 160:480] = 1.0
    (ours, found), (matrix, expected) = largest(prior_mask, query, support, mask), largest(plain, query, support, mask)
    if not torch.allclose(found, expected, atol=1e-4):
        raise RuntimeError("the chunked prior differs from the plain one")
    name = f"prior mask at {SIZE} px, {EPISODES} episodes: largest tensor"
    one = CELLS**4 * query.element_size()
    return [
        Row(name, f"{ours / 1e6:.0f} MB", f"{matrix / 1e6:.0f} MB", ours / matrix, f"< {one / 1e6:.0f} MB", ours < one)
    ]


if __name__ == "__main__":
    for row in rows():
        print(row)
