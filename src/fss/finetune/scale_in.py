"""A new diagonal on the input side of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers.scaled import ScaledLayer, scales, swap_scaled
from fss.finetune.layers.surgery import check_stages
from fss.types import StagedBackbone

PER = ("column", "channel")


class ScaleIn(Strategy):
    """Replace W by W S' and train only the diagonal S' (SVF paper, Tables 9 and 24).

    The paper writes a convolution as a matrix W (Co, Ci k k), section 3.2, so S' has one value per column, i.e. per
    input channel and kernel position. ``per=channel`` shares it over the kernel, which scales the input map; the paper
    does not say which it means. Both are equal for 1x1 convolutions.
    """

    name: ClassVar[str] = "scale_in"

    def __init__(self, stages: Sequence[int] = (2, 3, 4), per: str = "column") -> None:
        """Choose what trains.

        Args:
            stages: stages whose layers are scaled, 0 (stem) to 4.
            per: one value per ``column`` of the matrix or per input ``channel``.

        Raises:
            FssError: if a stage does not exist, or ``per`` is neither.
        """
        self.stages = check_stages(stages)
        if per not in PER:
            raise FssError(f"finetune.per={per} is not known: choose one of {', '.join(PER)}, as finetune.per=column.")
        self.per = per

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers by scaled ones."""
        return swap_scaled(backbone, self.stages, self._layer)

    def _layer(self, layer: nn.Conv2d | nn.Linear) -> ScaledLayer:
        positions = layer.weight[0, 0].numel() if self.per == "column" else 1
        return ScaledLayer(layer, (getattr(layer, "groups", 1), 1, layer.weight.shape[1], positions))

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the diagonals."""
        return scales(backbone, self.stages)
