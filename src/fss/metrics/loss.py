"""Mean loss of test episodes."""

from __future__ import annotations

from torchmetrics import MeanMetric


class EpisodeLoss(MeanMetric):
    """Mean over the episodes of all processes."""
