"""The usual choice in the field: a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.types import NormMode, StagedBackbone


class Freeze(Strategy):
    """Freeze the whole backbone: W stays W, and by default batch norm keeps its statistics (SVF paper, Table 1).

    The original PFENet freezes only the weights: training normalises with batch statistics and updates the running
    ones (``norm_mode="train"``).
    """

    name: ClassVar[str] = "freeze"
    trains_nothing = True

    def __init__(self, norm_mode: NormMode = "eval") -> None:
        """Choose the mode of batch norm in training.

        Args:
            norm_mode: ``eval`` uses fixed running statistics, ``train`` uses batch statistics and updates them.

        Raises:
            FssError: if the mode is neither of the two.
        """
        if norm_mode not in ("eval", "train"):
            raise FssError(f"finetune.norm_mode={norm_mode} is not known: choose eval, or train as PFENet's original")
        self.norm_mode = norm_mode

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield nothing."""
        return iter(())
