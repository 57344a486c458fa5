"""Singular Value Fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.chains.memory import check_memory
from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.factorise import factored_layers, factorise
from fss.finetune.layers.qkv import check_qkv, stacked_layers
from fss.finetune.layers.surgery import LAST_STAGE, check_stages
from fss.finetune.layers.svd import decompose, full_rank, rounded_rank
from fss.types import StagedBackbone

log = logging.getLogger(__name__)


class SVF(Strategy):
    """Decompose layers as W = U S V^T and train chosen factors, by default only S.

    SVF paper, section 3.2 and Tables 7 and 8 (arXiv 2206.06122). The release decomposes stages 0 to 4, although only 2
    to 4 train, and rounds ranks down to a multiple of 4 (``rank_rounding=4``), which truncates one layer, in the frozen
    stem (27 to 24). Here ranks are exact by default, and only the trained stages are decomposed unless rounding could
    change the others. Linear layers and attention, which no backbone of the paper has, are decomposed too.
    """

    name: ClassVar[str] = "svf"

    def __init__(
        self,
        stages: Sequence[int] = (2, 3, 4),
        factors: Sequence[str] = ("S",),
        rank_rounding: int = 1,
        memory: str = "balanced",
        qkv: str = "one",
    ) -> None:
        """Choose what trains.

        Args:
            stages: stages whose factors train, 0 (stem) to 4.
            factors: which of U, S and V train.
            rank_rounding: round ranks down to a multiple of this; 1 is exact, 4 is the release.
            memory: what the backward pass keeps if only S trains, see :data:`fss.finetune.chains.memory.Memory`.
            qkv: whether a linear layer named ``qkv`` is decomposed as ``one`` matrix, or as ``three``, those of query,
                key and value. Torch's own attention is always three.

        Raises:
            FssError: if a stage, factor or memory rule does not exist, no factor is given, ``rank_rounding`` < 1, or
                ``qkv`` is neither.
        """
        self.stages = check_stages(stages)
        unknown = [f for f in factors if f not in FactoredLayer.FACTORS]
        if unknown or not factors:
            raise FssError(f"finetune.factors={list(factors)}: give one or more of {list(FactoredLayer.FACTORS)}")
        if rank_rounding < 1:
            raise FssError(f"finetune.rank_rounding={rank_rounding} must be at least 1 (1 is exact, 4 the release)")
        self.factors = tuple(factors)
        self.rank_rounding = rank_rounding
        self.memory = check_memory(memory)
        self.qkv = check_qkv(qkv)

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers by their factors."""
        stages = range(LAST_STAGE + 1) if self.rank_rounding > 1 else self.stages
        stacked = stacked_layers(backbone, stages) if self.qkv == "three" else ()
        done = factorise(backbone, stages, self._factors, stacked=stacked)
        notes = [
            f"{one.name}: rank {one.layer.full_rank} truncated to {one.layer.S.numel()}"
            for one in done.layers
            if one.layer.S.numel() < one.layer.full_rank
        ]
        for note in notes:
            log.info("SVF: %s", note)
        return notes + done.notes

    def _factors(self, weight: Tensor, groups: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
        rank = rounded_rank(full_rank(weight, groups), self.rank_rounding)
        return decompose(weight, rank, groups)

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the chosen factors of the chosen stages."""
        for layer in factored_layers(backbone, self.stages):
            for factor in self.factors:
                yield getattr(layer, factor)
