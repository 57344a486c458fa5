"""A data loader that asks its sampler only when the first batch is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


class EpisodeLoader(DataLoader[Any]):
    """Starts its workers at the first batch, not when the iterator is made.

    Lightning makes the first iterator before it has restored a checkpoint, to count the steps; workers would then
    fetch the first batches of epoch 0 whatever epoch is continued.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Iterate over the batches of the sampler's epoch, from its position on."""
        yield from super().__iter__()
