"""One decision of those of several supports: votes relative to the largest number of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def relative_votes(logits: Sequence[Tensor]) -> Tensor:
    """Count the supports that call a pixel foreground, relative to the largest count in the image (HSNet, VAT).

    A pixel is foreground if votes / max(1, largest count) >= 1/2. The score is this share plus a quarter of a vote, so
    that half of the largest count is above one half.

    Args:
        logits: background and foreground by each of K supports, at the size of the image, each (B, 2, H, W).

    Returns:
        Shares of background and foreground, in [0, 1], (B, 2, H, W).
    """
    votes = torch.stack([one.argmax(dim=1) for one in logits]).sum(dim=0).to(logits[0].dtype)
    largest = votes.amax(dim=(1, 2), keepdim=True).clamp(min=1)
    foreground = (votes / largest + 0.25 / len(logits)).clamp(max=1).where(votes > 0, 0)
    return torch.stack([1 - foreground, foreground], dim=1)
