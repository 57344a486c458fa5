"""What the factored layers of a block note down in the forward pass, and read when the block is computed again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.geometry import ConvGeometry


class Tape:
    """Calls of factored layers, in order; this one keeps nothing."""

    def __init__(self) -> None:
        self.calls = 0

    def begin(self, layer: FactoredLayer, x: Tensor) -> Tensor | None:
        """Begin a call.

        Args:
            layer: the layer that is called.
            x: its input.

        Returns:
            V * x if it is known from an earlier pass.
        """
        self.calls += 1
        return None

    def keeps(self) -> bool:
        """Tell whether V * x of this call is to be kept."""
        return False

    def unread(self) -> float | None:
        """Return what to fill the output of this call with, None if somebody reads it."""
        return None

    def keep(self, inner: Tensor) -> None:
        """Take V * x of this call."""
        raise NotImplementedError


@dataclass(frozen=True)
class Call:
    """A call that was surveyed.

    Attributes:
        right: multiplications of V * x.
        left: multiplications of U with it.
        reads: storage of the input.
    """

    right: int
    left: int
    reads: int


class Survey(Tape):
    """Notes what calls there are and what they cost."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Call] = []

    def begin(self, layer: FactoredLayer, x: Tensor) -> Tensor | None:
        """Note the call."""
        positions = _positions(layer, x)
        self.seen.append(Call(positions * layer.V.numel(), positions * layer.U.numel(), storage(x)))
        return super().begin(layer, x)


class Recording(Tape):
    """Keeps V * x of chosen calls.

    Attributes:
        kept: V * x of those calls, in order.
    """

    def __init__(self, chosen: Sequence[bool]) -> None:
        """Choose the calls.

        Args:
            chosen: one entry per call.
        """
        super().__init__()
        self._chosen = chosen
        self.kept: list[Tensor] = []

    def finish(self) -> None:
        """Check that the block made as many calls as before."""
        _check(self.calls, len(self._chosen))

    def keeps(self) -> bool:
        """Tell whether V * x of this call is to be kept."""
        return self._chosen[self.calls - 1] if self.calls <= len(self._chosen) else False

    def keep(self, inner: Tensor) -> None:
        """Keep V * x of this call."""
        self.kept.append(inner)


class Replay(Tape):
    """Gives V * x of the calls that kept it."""

    def __init__(self, chosen: Sequence[bool], kept: Sequence[Tensor], skip: int | None, instead: float = 0.0) -> None:
        """Take what was recorded.

        Args:
            chosen: one entry per call.
            kept: V * x of the chosen calls.
            skip: number of a chosen call whose output nobody reads, or None.
            instead: value of that output.
        """
        super().__init__()
        self._chosen, self._kept, self._skip, self._instead = chosen, list(kept), skip, instead

    def finish(self) -> None:
        """Check that the block made as many calls as before."""
        _check(self.calls, len(self._chosen))

    def begin(self, layer: FactoredLayer, x: Tensor) -> Tensor | None:
        """Return V * x of this call if it was kept."""
        super().begin(layer, x)
        if self.calls > len(self._chosen):
            self.finish()
        return self._kept.pop(0) if self._chosen[self.calls - 1] else None

    def unread(self) -> float | None:
        """Return what to fill the output of this call with, None if somebody reads it."""
        return self._instead if self.calls - 1 == self._skip else None


def _check(calls: int, before: int) -> None:
    if calls != before:
        raise RuntimeError(
            f"a block called its factored layers {calls} times, but {before} times when it was first run: what it does "
            "depends on its values. Set finetune.memory=plain."
        )


class _Current(threading.local):
    tape: Tape | None = None


_CURRENT = _Current()


def current() -> Tape | None:
    """Return the tape that is running in this thread."""
    return _CURRENT.tape


@contextmanager
def running(tape: Tape) -> Iterator[None]:
    """Run a tape while the context is open."""
    before, _CURRENT.tape = _CURRENT.tape, tape
    try:
        yield
    finally:
        _CURRENT.tape = before


def storage(x: Tensor) -> int:
    """Return the address of the memory that a tensor, or the tensor of which it is a view, occupies."""
    return x.untyped_storage().data_ptr()


def _positions(layer: FactoredLayer, x: Tensor) -> int:
    if isinstance(layer.geometry, ConvGeometry):
        (down, along), (height, width) = layer.geometry.stride, x.shape[-2:]
        return len(x) * (height // down) * (width // along)
    return x.numel() // x.shape[-1]
