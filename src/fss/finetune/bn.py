"""Batch-norm tuning: scale and shift of the normalisation layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers.surgery import check_stages, stage_modules
from fss.types import StagedBackbone

AFFINE = ("weight", "bias")


class BN(Strategy):
    """Train the affine parameters of batch norm: y = weight (x - mean) / std + bias (SVF paper, Tables 4, 16 and 21).

    The running statistics stay those of pre-training, as by default in every strategy; the paper leaves this open.
    The paper tunes batch norm in the whole backbone, stem included.
    """

    name: ClassVar[str] = "bn"

    def __init__(self, stages: Sequence[int] = (0, 1, 2, 3, 4), affine: Sequence[str] = AFFINE) -> None:
        """Choose what trains.

        Args:
            stages: stages whose batch norm trains, 0 (stem) to 4.
            affine: weight, bias, or both.

        Raises:
            FssError: if a stage does not exist, or ``affine`` is empty or names anything else.
        """
        self.stages = check_stages(stages)
        if not affine or not set(affine) <= set(AFFINE):
            raise FssError(
                f"finetune.affine={list(affine)} is not allowed: give one or both of {', '.join(AFFINE)}, as in "
                "'finetune.affine=[bias]'."
            )
        self.affine = tuple(affine)
        self.wanted = f"{' or '.join(affine)} of batch norm"

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the chosen affine parameters of batch norm in the chosen stages."""
        for module in stage_modules(backbone, self.stages):
            if isinstance(module, _BatchNorm):
                yield from (p for p in (getattr(module, a) for a in self.affine) if p is not None)
