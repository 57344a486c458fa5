"""Conventional fine-tuning of whole stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.finetune.base import Strategy
from fss.finetune.layers.surgery import check_stages, stage_modules
from fss.types import StagedBackbone


class Full(Strategy):
    """Train every weight W of the chosen stages (SVF paper, Tables 5 and 10).

    The paper does not mention batch norm; the default follows the release's ``fix_bn``: statistics and
    affine parameters stay fixed. ``train_norm`` trains the affine parameters too; the statistics never change.
    """

    name: ClassVar[str] = "full"

    def __init__(self, stages: Sequence[int] = (2, 3, 4), train_norm: bool = False) -> None:
        """Choose what trains.

        Args:
            stages: stages to train, 0 (stem) to 4.
            train_norm: train weight and bias of batch norm too.

        Raises:
            FssError: if a stage does not exist.
        """
        self.stages = check_stages(stages)
        self.train_norm = train_norm

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the parameters of the chosen stages."""
        for module in stage_modules(backbone, self.stages):
            if self.train_norm or not isinstance(module, _BatchNorm):
                yield from module.parameters(recurse=False)
