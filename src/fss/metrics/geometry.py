"""Resize logits and label to the size at which the releases score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
class Scoring:
    """Where predictions are scored.

    Attributes:
        at: ``original``: at the size of the label; ``network``: at that of the network's input.
        fit: how images were fitted onto it: ``pad``, the longer side resized and the rest filled; ``square``, resized.
    """

    at: Literal["original", "network"] = "original"
    fit: Literal["pad", "square"] = "pad"

    def __call__(
        self, logits: Tensor, full: Tensor, small: Tensor, align_corners: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Bring logits and label to one size.

        Args:
            logits: at the size of the network's input, (classes, S, S).
            full: original label, (H, W).
            small: label at the size of the network's input, (S, S).
            align_corners: how the logits are resized.

        Returns:
            logits (classes, h, w) and label (h, w).
        """
        if self.at == "network":
            return logits, small
        if self.fit == "pad":
            return at_label_size(logits, full, align_corners)
        return up(logits[None], (full.shape[-2], full.shape[-1]), align_corners)[0], full
