"""Mean loss of test episodes."""

from __future__ import annotations

from torchmetrics import MeanMetric


class EpisodeLoss(MeanMetric):
    """Mean over the episodes of all processes; not finite if one of them is not."""

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable")  # the default leaves such episodes out
