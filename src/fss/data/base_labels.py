"""Labels of all base classes, derived from class masks (protocol A.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fss.data.reading.masks import UInt8

IGNORE = 255  # a copy of fss.types.IGNORE, whose import would load torch


class BaseLabels:
    """Maps class indices to positions among the base classes.

    Args:
        base: ids of the fold's base classes.
    """

    def __init__(self, base: Sequence[int]) -> None:
        self.base = tuple(sorted(base))
        self._table = np.zeros(256, dtype=np.uint8)
        self._table[list(self.base)] = np.arange(1, len(self.base) + 1)
        self._table[IGNORE] = IGNORE

    def __call__(self, mask: UInt8) -> UInt8:
        """Convert a mask to base-class labels.

        Args:
            mask: class indices, (H, W).

        Returns:
            label: position in the ascending list of base classes + 1; 0 for background and novel classes; 255 where
            the mask is ignored, (H, W), uint8.
        """
        label: UInt8 = self._table[mask]
        return label

    def index(self, class_id: int) -> int:
        """Return the zero-based position of a class among the base classes; -1 for any other class.

        Args:
            class_id: id of the class.
        """
        return self.base.index(class_id) if class_id in self.base else -1
