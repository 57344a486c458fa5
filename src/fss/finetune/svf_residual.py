"""Singular values trained as multiples of the pretrained ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from fss.finetune.base import Strategy
from fss.finetune.layers.factorise import factored_layers, factorise
from fss.finetune.layers.surgery import check_stages
from fss.types import StagedBackbone


class SVFResidual(Strategy):
    """Replace W by U S S' V^T with S' = exp(p), p = 0 at first, and train p (SVF paper, appendix D.2, Tables 23, 24).

    S' stays positive, so no singular value can change its sign, and weight decay pulls the values towards the
    pretrained ones instead of zero. ``train_s`` trains S as well.
    """

    name: ClassVar[str] = "svf_residual"

    def __init__(self, stages: Sequence[int] = (2, 3, 4), train_s: bool = False) -> None:
        """Choose what trains.

        Args:
            stages: stages whose singular values train, 0 (stem) to 4.
            train_s: train S as well as S'.

        Raises:
            FssError: if a stage does not exist.
        """
        self.stages = check_stages(stages)
        self.train_s = train_s

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers by U, S, S' and V."""
        done = factorise(backbone, self.stages)
        for one in done.layers:
            one.layer.make_residual()
        return done.notes

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield p, and S if it trains."""
        for layer in factored_layers(backbone, self.stages):
            if layer.p is not None:
                yield layer.p
                if self.train_s:
                    yield layer.S
