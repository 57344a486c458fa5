"""Images whose scores decide nothing: infinite or not a number, whatever the loss and the weights say."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Undecided(Metric):
    """Counts images that have a pixel without a largest finite score, over all processes.

    The largest of scores that are not numbers is their first: such a pixel would count as background. A score of minus
    infinity beside a finite one does decide.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        """Declare the state."""
        super().__init__()
        self.add_state("counts", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, *logits: Tensor) -> None:
        """Add images.

        Args:
            logits: (B, C, H, W) each, of the same B images.
        """
        bad = torch.stack([~one.amax(dim=1).isfinite().flatten(1).all(dim=1) for one in logits]).any(dim=0)
        self.counts += torch.stack([bad.sum(), torch.ones_like(bad, dtype=torch.int64).sum()])

    def compute(self) -> tuple[int, int]:
        """Return the number of images that are not decided, and of all."""
        bad, every = self.counts.tolist()
        return bad, every
