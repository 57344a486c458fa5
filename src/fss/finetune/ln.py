"""LayerNorm tuning: scale and shift of the normalisation layers that use no statistics of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.bn import AFFINE
from fss.finetune.layers.surgery import check_stages, stage_modules
from fss.types import StagedBackbone


class LN(Strategy):
    """Train the affine parameters of LayerNorm: y = weight (x - mean) / std + bias, mean and std of one image.

    The counterpart of ``bn`` (SVF paper, Tables 4 and 16) on transformers and ConvNeXt; published as LN-Tune (arXiv
    2304.01917). Whatever normalises without statistics of a batch counts: LayerNorm of any class (timm's and
    torchvision's ``LayerNorm2d`` too), RMSNorm, which has no bias, and GroupNorm, which with one group is the
    LayerNorm of PoolFormer. Other classes count if they have torch's ``normalized_shape``. Batch norm and instance norm
    do not, and neither does LayerScale, a plain factor.
    """

    name: ClassVar[str] = "ln"

    def __init__(self, stages: Sequence[int] = (0, 1, 2, 3, 4), affine: Sequence[str] = AFFINE) -> None:
        """Choose what trains.

        Args:
            stages: stages whose LayerNorm trains, 0 (stem) to 4.
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
        self.wanted = f"{' or '.join(affine)} of LayerNorm, RMSNorm or GroupNorm"

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the chosen affine parameters of LayerNorm in the chosen stages."""
        for module in stage_modules(backbone, self.stages):
            if is_layer_norm(module):
                yield from (p for p in (getattr(module, a, None) for a in self.affine) if isinstance(p, nn.Parameter))


def is_layer_norm(module: nn.Module) -> bool:
    """Tell whether a module normalises without statistics of a batch, see :class:`LN`."""
    return isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm) or hasattr(module, "normalized_shape")
