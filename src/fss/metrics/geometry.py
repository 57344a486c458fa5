"""Resize logits and label for scoring at the original image size, as in the releases."""

from __future__ import annotations

import torch
from torch import Tensor

from fss.nn.resize import up
from fss.types import IGNORE


def at_label_size(logits: Tensor, label: Tensor, align_corners: bool = True) -> tuple[Tensor, Tensor]:
    """Resize square logits to a square around the original label (protocol of PFENet and BAM).

    The label is placed top-left in a square of side L = max(H, W) filled with 255; logits of the padded S x S input
    are resized to L x L. The image fills a multiple of 8 pixels of S, but all of S maps to L, which leaves a shift of
    up to about one pixel; it is kept for parity with the releases.

    Args:
        logits: (2, S, S).
        label: original label, (H, W).
        align_corners: as the head declares.

    Returns:
        logits (2, L, L) and label (L, L).
    """
    height, width = label.shape
    side = max(height, width)
    square = torch.full((side, side), IGNORE, dtype=label.dtype, device=label.device)
    square[:height, :width] = label
    return up(logits[None], side, align_corners)[0], square
