"""SVF and LayerNorm tuning combined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fss.finetune.base import Strategy
from fss.finetune.bn import AFFINE
from fss.finetune.chains.memory import check_memory
from fss.finetune.composed import Composed
from fss.finetune.ln import LN
from fss.finetune.svf import SVF


class SVFLN(Composed):
    """Train S of W = U S V^T and the affine parameters of LayerNorm: ``svf_bn`` (SVF paper, Table 4) on transformers.

    As in ``svf_bn`` the two parts have separate stages, and by default S trains in stages 2 to 4 and LayerNorm
    everywhere. See ``ln`` for what counts as LayerNorm.
    """

    name: ClassVar[str] = "svf_ln"

    def __init__(
        self,
        stages: Sequence[int] = (2, 3, 4),
        factors: Sequence[str] = ("S",),
        rank_rounding: int = 1,
        ln_stages: Sequence[int] = (0, 1, 2, 3, 4),
        affine: Sequence[str] = AFFINE,
        memory: str = "balanced",
    ) -> None:
        """Choose what trains.

        Args:
            stages: stages whose factors train, 0 (stem) to 4.
            factors: which of U, S and V train.
            rank_rounding: round ranks down to a multiple of this; 1 is exact, 4 is the release.
            ln_stages: stages whose LayerNorm trains.
            affine: weight, bias, or both, of LayerNorm.
            memory: what the backward pass keeps of layers of which only S trains, see
                :data:`fss.finetune.chains.memory.Memory`.

        Raises:
            FssError: if a stage, factor or memory rule does not exist, or an option is out of range.
        """
        self.memory = check_memory(memory)
        self._parts = (SVF(stages, factors, rank_rounding), LN(ln_stages, affine))

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """SVF, then LayerNorm."""
        return self._parts
