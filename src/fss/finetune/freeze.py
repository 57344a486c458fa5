"""The field's habit: the backbone does not train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.types import NormMode, StagedBackbone


class Freeze(Strategy):
    """Freeze the whole backbone: W stays W, and so do batch norm's statistics by default (SVF paper, Table 1).

    PFENet's original freezes the weights alone: training uses the statistics of each batch and moves the running ones
    (``norm_mode="train"``).
    """

    name: ClassVar[str] = "freeze"

    def __init__(self, norm_mode: NormMode = "eval") -> None:
        """Choose what batch norm does in training.

        Args:
            norm_mode: ``eval`` keeps the running statistics, ``train`` uses and moves them.

        Raises:
            FssError: if the mode is neither.
        """
        if norm_mode not in ("eval", "train"):
            raise FssError(f"finetune.norm_mode={norm_mode} is not known: choose eval, or train as PFENet's original")
        self.norm_mode = norm_mode

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield nothing."""
        return iter(())
