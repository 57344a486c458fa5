"""What a forward pass depends on besides its input, for running it a second time: random numbers, autocast, buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Surroundings:
    """State outside of a block that its forward pass may depend on.

    Attributes:
        device: where the block runs.
        random: states of the generators, of the CPU and then of the device.
        dtype: type that autocast computes in, None if it is off.
    """

    device: torch.device
    random: tuple[Tensor, ...]
    dtype: torch.dtype | None

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """Read the present state."""
        kind = device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return cls(device, _random(device), dtype)

    def drawn(self) -> bool:
        """Tell whether random numbers have been drawn since."""
        return not all(torch.equal(a, b) for a, b in zip(self.random, _random(self.device), strict=True))

    @contextmanager
    def again(self, random: bool = True) -> Iterator[None]:
        """Restore the state while the context is open.

        Args:
            random: the generators too.
        """
        cuda = [self.device] if random and len(self.random) > 1 else []
        with torch.random.fork_rng(cuda, enabled=random), self.autocast():
            if random:
                self.rewind()
            yield

    def rewind(self) -> None:
        """Set the generators back."""
        torch.set_rng_state(self.random[0])
        if len(self.random) > 1:
            torch.cuda.set_rng_state(self.random[1], self.device)

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast as then, but without its cache, which would keep weights that were cast without gradients."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype, cache_enabled=False)


@contextmanager
def unmoved(block: nn.Module) -> Iterator[Callable[[], bool]]:
    """Put the buffers of a block back that a trial run moves.

    Args:
        block: the block.

    Yields:
        A function that tells afterwards whether a buffer was moved.
    """
    before = {name: (buffer, buffer._version, buffer.clone()) for name, buffer in block.named_buffers()}
    moved: list[str] = []
    try:
        yield lambda: bool(moved)
    finally:
        now = dict(block.named_buffers())
        for name, (buffer, version, values) in before.items():
            if now.get(name) is not buffer or buffer._version != version:
                moved.append(name)
                with torch.no_grad():
                    buffer.copy_(values)
        moved += sorted(now.keys() - before.keys())


def _random(device: torch.device) -> tuple[Tensor, ...]:
    states = (torch.get_rng_state(),)
    return (*states, torch.cuda.get_rng_state(device)) if device.type == "cuda" else states
