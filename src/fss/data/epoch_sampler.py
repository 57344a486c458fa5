"""Sampler of the episode numbers that each process loads: the only part of episode sampling that needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from fss.errors import DataError


class EpisodeIndexSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, i) to the data loader, so that its workers need no state.

    Process r of W takes r, r + W, r + 2W, ...: global batch b is exactly the episodes [b * batch, (b + 1) * batch),
    whatever W is. Training drops an incomplete global batch; otherwise nothing is padded or dropped. Use
    ``Trainer(use_distributed_sampler=False)``.

    Attributes:
        skip: global batches that the next iteration skips because they were trained before an interruption.

    Args:
        length: episodes per epoch.
        batch_size: size of the global batch.
        rank: number of this process.
        world_size: number of processes W.
        training: whether epochs differ and incomplete batches are dropped.
        order: all episode numbers in loading order; None: ascending. Each process takes the same episodes either way.

    Raises:
        DataError: if a training batch is not divisible by the number of processes or is larger than the epoch, or if
            there are more processes than episodes.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        training: bool = False,
        order: Sequence[int] | None = None,
    ) -> None:
        if batch_size < 1 or (training and batch_size % world_size):
            raise DataError(
                f"batch_size={batch_size} cannot be shared by {world_size} processes: give a multiple of {world_size}. "
                "It is the size over all devices together."
            )
        if training and length < batch_size:
            raise DataError(
                f"recipe.batch_size={batch_size} is larger than the {length} training episodes of an epoch: give at "
                f"most {length}."
            )
        if length < world_size:
            raise DataError(
                f"{length} episodes cannot be shared by {world_size} processes: give at least {world_size} test and "
                "validation episodes, or lower trainer.devices."
            )
        self.stop = length - length % batch_size if training else length
        self.rank, self.world_size, self.training = rank, world_size, training
        self.batch_size = batch_size
        self.order = order
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (called by Lightning); no effect on validation and test episodes.

        Args:
            epoch: number of the epoch.
        """
        self.epoch = epoch if self.training else 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over the (epoch, i) of this process."""
        first, self.skip = self.skip * self.batch_size + self.rank, 0
        if self.order is not None:
            return ((self.epoch, i) for i in self.order if i >= first and i % self.world_size == self.rank)
        return ((self.epoch, i) for i in range(first, self.stop, self.world_size))

    def __len__(self) -> int:
        """Return the number of episodes of this process in a whole epoch."""
        return len(range(self.rank, self.stop, self.world_size))
