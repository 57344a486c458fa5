"""Conventional fine-tuning of whole stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, get_args

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers.surgery import check_stages, stage_modules
from fss.types import NormMode, StagedBackbone


class Full(Strategy):
    """Train every weight W of the chosen stages (SVF paper, Tables 5 and 10).

    The paper does not mention batch norm; the default follows the release's ``fix_bn``: statistics and
    affine parameters stay fixed. ``train_norm`` trains the affine parameters too. Releases that tune their backbone do
    otherwise: PMMs moves the statistics of batch norm but fixes its affine parameters (``norm_mode="train"``), PPNet
    trains stages 3 and 4 with their batch norm (``stages=(3, 4)``, ``train_norm``, ``norm_mode="train_late"``).
    """

    name: ClassVar[str] = "full"

    def __init__(
        self, stages: Sequence[int] = (2, 3, 4), train_norm: bool = False, norm_mode: NormMode = "eval"
    ) -> None:
        """Choose what trains.

        Args:
            stages: stages to train, 0 (stem) to 4.
            train_norm: train weight and bias of batch norm too.
            norm_mode: ``eval`` uses fixed running statistics, ``train`` uses batch statistics and updates them,
                ``train_late`` in stages 3 and 4 alone.

        Raises:
            FssError: if a stage or the mode does not exist.
        """
        self.stages = check_stages(stages)
        if norm_mode not in get_args(NormMode):
            raise FssError(
                f"finetune.norm_mode={norm_mode} is not known: choose eval, train as PMMs, or train_late as PPNet"
            )
        self.norm_mode = norm_mode
        self.train_norm = train_norm

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the parameters of the chosen stages."""
        for module in stage_modules(backbone, self.stages):
            if self.train_norm or not isinstance(module, _BatchNorm):
                yield from module.parameters(recurse=False)
