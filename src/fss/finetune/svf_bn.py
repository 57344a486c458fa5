"""SVF and batch-norm tuning combined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fss.finetune.base import Strategy
from fss.finetune.bn import AFFINE, BN
from fss.finetune.composed import Composed
from fss.finetune.svf import SVF


class SVFBN(Composed):
    """Train S of W = U S V^T and the affine parameters of batch norm (SVF paper, Tables 4 and 16: "BN and S").

    The two parts have separate stages, because the paper tunes S in stages 2 to 4 and batch norm everywhere.
    """

    name: ClassVar[str] = "svf_bn"

    def __init__(
        self,
        stages: Sequence[int] = (2, 3, 4),
        factors: Sequence[str] = ("S",),
        rank_rounding: int = 1,
        bn_stages: Sequence[int] = (0, 1, 2, 3, 4),
        affine: Sequence[str] = AFFINE,
    ) -> None:
        """Choose what trains.

        Args:
            stages: stages whose factors train, 0 (stem) to 4.
            factors: which of U, S and V train.
            rank_rounding: round ranks down to a multiple of this; 1 is exact, 4 is the release.
            bn_stages: stages whose batch norm trains.
            affine: weight, bias, or both, of batch norm.

        Raises:
            FssError: if a stage or factor does not exist, or an option is out of range.
        """
        self._parts = (SVF(stages, factors, rank_rounding), BN(bn_stages, affine))

    @property
    def parts(self) -> tuple[Strategy, ...]:
        """SVF, then batch norm."""
        return self._parts
