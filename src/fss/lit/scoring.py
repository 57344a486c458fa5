"""What every module that scores predictions has: a count of those that decide nothing."""

from __future__ import annotations

import pytorch_lightning as pl
from torch import Tensor, nn

from fss.metrics.undecided import Undecided


class ScoringModule(pl.LightningModule):
    """A module whose validation and test compare predictions with labels.

    A callback ends a run in which one of them was not decided, see :mod:`fss.lit.callbacks.divergence`.

    Attributes:
        undecided: metric per stage, ``val`` and ``test``.
    """

    def __init__(self) -> None:
        """Start without a count."""
        super().__init__()
        self.undecided = nn.ModuleDict({stage: Undecided() for stage in ("val", "test")})

    def watch(self, stage: str, *logits: Tensor) -> None:
        """Note whether predictions can be read off; called with everything that is scored.

        Args:
            stage: ``val`` or ``test``.
            logits: (B, C, H, W) each, of the same B images.
        """
        metric = self.undecided[stage]
        assert isinstance(metric, Undecided)
        metric.update(*logits)

    def take_undecided(self, stage: str) -> tuple[int, int]:
        """Return how many images were not decided, and how many there were, in all processes; forget them.

        Args:
            stage: ``val`` or ``test``.
        """
        metric = self.undecided[stage]
        assert isinstance(metric, Undecided)
        bad, every = metric.compute()
        metric.reset()
        return bad, every
