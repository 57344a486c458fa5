"""Rank, world size, random generators of single episodes, and means over the processes of distributed training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed


def rank_and_world() -> tuple[int, int]:
    """Return the rank of this process and the number of processes; (0, 1) outside distributed training."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def episode_generators(episodes: int, device: torch.device | None = None) -> list[torch.Generator]:
    """Return a generator for each episode of a training step, which depends only on its place in the global batch.

    One seed is drawn from torch's global generator, the same on every process if they were seeded alike.

    Args:
        episodes: number of this process's episodes.
        device: of the generators.
    """
    rank, world = rank_and_world()
    seed = int(torch.randint(1 << 62, ()))
    return [torch.Generator(device or "cpu").manual_seed(seed + row * world + rank) for row in range(episodes)]


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """Average a value over all processes, so that a loss divided by it has the gradient of the global batch.

    Distributed training averages the gradients of its processes. If each divided by its own number of pixels, the
    result would depend on how the batch was split; divided by the mean number, it does not.

    Args:
        value: any shape; all processes must call this together.

    Returns:
        The mean, float32; ``value`` itself if there is one process.
    """
    if rank_and_world()[1] == 1:
        return value
    total = value.detach().double().clone()
    distributed.all_reduce(total)
    return (total / distributed.get_world_size()).float()


def means_over_processes(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Average values for a log, all in one exchange; they need no gradient.

    Args:
        values: scalars by name; all processes must call this together, with the same names.

    Returns:
        Their means, float32; the values themselves, without a graph, if there is one process.
    """
    detached = {name: value.detach() for name, value in values.items()}
    if not detached or rank_and_world()[1] == 1:
        return detached
    means = mean_over_processes(torch.stack([value.double() for value in detached.values()]))
    return dict(zip(detached, means, strict=True))
