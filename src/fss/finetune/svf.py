"""Singular Value Fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers import SVFConv2d
from fss.finetune.surgery import LAST_STAGE, check_stages, convolutions, find
from fss.finetune.svd import full_rank
from fss.types import StagedBackbone

log = logging.getLogger(__name__)


class SVF(Strategy):
    """Decompose convolutions as W = U S V^T and train chosen factors, by default S alone.

    SVF paper, section 3.2 and Tables 7 and 8 (arXiv 2206.06122). Departures of the release, each an option here:
    it rounds ranks down to a multiple of 4 (``rank_rounding=4``), which truncates one layer, the frozen stem (27 to
    24), because it decomposes stages 0 to 4 although 2 to 4 train. Here the rank is exact by default, and only
    stages that train are decomposed unless rounding could change the others.
    """

    name: ClassVar[str] = "svf"

    def __init__(
        self, stages: Sequence[int] = (2, 3, 4), factors: Sequence[str] = ("S",), rank_rounding: int = 1
    ) -> None:
        """Choose what trains.

        Args:
            stages: stages whose factors train, 0 (stem) to 4.
            factors: which of U, S and V train.
            rank_rounding: round ranks down to this multiple; 1 is exact, 4 is the release.

        Raises:
            FssError: if a stage or factor does not exist, none is given, or the rounding is below 1.
        """
        self.stages = check_stages(stages)
        unknown = [f for f in factors if f not in SVFConv2d.FACTORS]
        if unknown or not factors:
            raise FssError(f"finetune.factors={list(factors)}: give one or more of {list(SVFConv2d.FACTORS)}")
        if rank_rounding < 1:
            raise FssError(f"finetune.rank_rounding={rank_rounding} must be at least 1 (1 is exact, 4 the release)")
        self.factors = tuple(factors)
        self.rank_rounding = rank_rounding

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace convolutions by their factors."""
        everywhere = self.rank_rounding > 1
        notes = []
        for site in convolutions(backbone, range(LAST_STAGE + 1) if everywhere else self.stages):
            conv = site.module
            assert isinstance(conv, nn.Conv2d)
            layer = SVFConv2d.from_conv(conv, self.rank_rounding)
            full = conv.groups * full_rank(conv.weight, conv.groups)
            if layer.S.numel() < full:
                notes.append(f"{site.name}: rank {full} truncated to {layer.S.numel()}")
            site.put(layer)
        for note in notes:
            log.info("SVF: %s", note)
        return notes

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the chosen factors of the chosen stages."""
        for site in find(backbone, self.stages, lambda m: isinstance(m, SVFConv2d)):
            for factor in self.factors:
                yield getattr(site.module, factor)
