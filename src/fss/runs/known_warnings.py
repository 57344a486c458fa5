"""Silence notices of libraries that say nothing about the run."""

from __future__ import annotations

import logging
import warnings

_NOTICES = (
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning and a newer torch
    r".*module\(s\) in eval mode at the start of training.*",  # frozen batch norm is the point
    r".*does not have many workers which may be a bottleneck.*",
    r".*your dataloader is not resumable.*",  # ours is: the sampler is told where to go on
    r".*It is recommended to use `self.log.*sync_dist=True.*",  # what we log is that of all processes already
    r".*metric EpisodeIoU was called before the ``update`` method.*",  # an epoch continued at its end, or no episode
    r".*metric EpisodeLoss was called before the ``update`` method.*",
    r".*Experiment logs directory .* exists and is not empty.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
)


def hide_known_warnings() -> None:
    """Hide known notices; everything else stays visible."""
    for pattern in _NOTICES:
        warnings.filterwarnings("ignore", message=pattern)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
