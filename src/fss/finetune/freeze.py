"""The usual choice in the field: a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, get_args

from torch import nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers.surgery import root_of
from fss.types import NormMode, StagedBackbone


class Freeze(Strategy):
    """Freeze the whole backbone: W stays W, and by default batch norm keeps its statistics (SVF paper, Table 1).

    The original PFENet freezes only the weights: training normalises with batch statistics and updates the running
    ones (``norm_mode="train"``). CWT does so in the first step of every epoch (``norm_mode="train_first"``).
    """

    name: ClassVar[str] = "freeze"
    trains_nothing = True

    def __init__(self, norm_mode: NormMode | Literal["train_first"] = "eval") -> None:
        """Choose the mode of batch norm in training.

        Args:
            norm_mode: ``eval`` uses fixed running statistics, ``train`` uses batch statistics and updates them,
                ``train_late`` in stages 3 and 4 alone, ``train_first`` in the first step of every epoch alone.

        Raises:
            FssError: if the mode is none of these.
        """
        if norm_mode not in (*get_args(NormMode), "train_first"):
            raise FssError(
                f"finetune.norm_mode={norm_mode} is not known: choose eval, train as PFENet's original, train_late, or "
                "train_first as CWT"
            )
        self.first_alone = norm_mode == "train_first"
        self.norm_mode = "train" if norm_mode == "train_first" else norm_mode

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield nothing."""
        return iter(())

    def before_step(self, backbone: StagedBackbone, first: bool) -> None:
        """Let batch norm normalise by the batch in the first step of an epoch, if in no other."""
        mode: NormMode = "train" if first else "eval"
        if self.first_alone and backbone.norm_mode != mode:
            backbone.norm_mode = mode
            root_of(backbone).train(backbone.training)
