"""A data loader that starts its workers and sampler only when the first batch is requested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


class EpisodeLoader(DataLoader[Any]):
    """Starts its workers at the first batch, not when the iterator is created.

    Lightning creates the first iterator, to count the steps, before it restores a checkpoint; workers would then load
    the first batches of epoch 0 even if a later epoch is resumed.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Iterate over the batches of the sampler's epoch, from its position on."""
        yield from super().__iter__()
