"""A new diagonal on the output side of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from fss.finetune.base import Strategy
from fss.finetune.layers.scaled import ScaledLayer, scales, swap_scaled
from fss.finetune.layers.surgery import check_stages
from fss.types import StagedBackbone


class ScaleOut(Strategy):
    """Replace W by S' W and train only the diagonal S', one value per output channel (SVF paper, Tables 9 and 24).

    S' is outside the singular space of W and starts at 1. A bias is not scaled because the formula has none.
    """

    name: ClassVar[str] = "scale_out"

    def __init__(self, stages: Sequence[int] = (2, 3, 4)) -> None:
        """Choose what trains.

        Args:
            stages: stages whose layers are scaled, 0 (stem) to 4.

        Raises:
            FssError: if a stage does not exist.
        """
        self.stages = check_stages(stages)

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers by scaled ones."""
        return swap_scaled(backbone, self.stages, _per_output)

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the diagonals."""
        return scales(backbone, self.stages)


def _per_output(layer: nn.Conv2d | nn.Linear) -> ScaledLayer:
    groups = getattr(layer, "groups", 1)
    return ScaledLayer(layer, (groups, layer.weight.shape[0] // groups, 1, 1))
