"""Random rotations that are redrawn from a seed instead of being stored."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from fss.finetune.layers.svd import one_thread


def random_rotation(size: int, groups: int, seed: int, name: str, like: Tensor) -> Tensor:
    """Draw uniformly distributed orthogonal matrices (QR of a Gaussian matrix, with the signs of R's diagonal).

    The draw depends only on the arguments, not on torch's global generator, the device, or other layers.

    Args:
        size: matrix size n.
        groups: number of matrices.
        seed: seed of the run's rotations.
        name: name of the layer, so that layers of equal size differ.
        like: tensor whose device is used; on the meta device nothing is drawn.

    Returns:
        Float64 matrices on that device, (groups, n, n).
    """
    if like.is_meta:
        return torch.empty(groups, size, size, dtype=torch.float64, device="meta")
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big"))
    noise = torch.randn(groups, size, size, dtype=torch.float64, device="cpu", generator=generator)
    with one_thread(noise.device):
        q, r = torch.linalg.qr(noise)
    signs = torch.diagonal(r, dim1=-2, dim2=-1).sign()
    rotations: Tensor = q * signs.unsqueeze(-2)
    return rotations.to(like.device)
