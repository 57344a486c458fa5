"""One line of the table of measurements."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was measured against what.

    Attributes:
        name: what was measured.
        ours: our figure, with unit.
        reference: the other one.
        ratio: ours to the other.
        target: what is aimed at, in words.
        met: whether it is reached.
    """

    name: str
    ours: str
    reference: str
    ratio: float
    target: str
    met: bool
