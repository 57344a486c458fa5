"""The images that a backbone was made for: normalisation and allowed sides; options are checked by it before torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputSpec:
    """The images that a backbone was made for.

    Attributes:
        mean: mean of each channel that normalisation subtracts, of values in [0, 1].
        std: standard deviation that it divides by.
        step: sides of the square input are ``step * n + offset``; 1 allows every side.
        offset: see ``step``.
        most: largest allowed side; None: no limit. Networks that are built for one side allow no other.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    step: int = 8
    offset: int = 1
    most: int | None = None

    @property
    def rule(self) -> str:
        """The allowed sides in words."""
        if self.most == self.step + self.offset:
            return f"{self.most} alone"
        if self.offset:
            return f"{self.step}n + {self.offset}"
        return "any" if self.step == 1 else f"multiples of {self.step}"

    def allows(self, size: int) -> bool:
        """Tell whether a side is allowed, in pixels."""
        least = self.step + self.offset
        return least <= size <= (self.most or size) and (size - self.offset) % self.step == 0

    def around(self, size: int) -> tuple[int, int]:
        """Return the nearest allowed sides that are not above and not below a side; equal if it is allowed itself."""
        size = min(size, self.most or size)
        low = max((size - self.offset) // self.step, 1) * self.step + self.offset
        return low, low if low >= size else low + self.step

    def nearest(self, size: int) -> int:
        """Return the allowed side that is nearest to a side, of two equally near ones the larger."""
        low, high = self.around(size)
        return low if size - low < high - size else high
