"""Bottleneck modules after the stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers.surgery import check_stages, find
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone


class Bottleneck(TunedLayer):
    """A residual bottleneck of 1x1 convolutions: x + up(ReLU(down(x))); the identity at first, because up is zero.

    Attributes:
        down: C to h channels.
        up: h to C channels.
    """

    def __init__(self, channels: int, hidden: int, like: nn.Parameter) -> None:
        """Build.

        Args:
            channels: C.
            hidden: h.
            like: gives device and type.
        """
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1, device=like.device, dtype=like.dtype)
        self.relu = nn.ReLU()
        self.up = nn.Conv2d(hidden, channels, 1, device=like.device, dtype=like.dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]  # it was asked for

    def forward(self, x: Tensor) -> Tensor:
        """Adapt a map.

        Args:
            x: (N, C, h, w).

        Returns:
            Likewise.
        """
        adapted: Tensor = self.up(self.relu(self.down(x)))
        return x + adapted

    @property
    def plain_size(self) -> int:
        """Nothing: the plain backbone has no such layer."""
        return 0

    def merge(self) -> nn.Module:
        """Refuse: the ReLU keeps an adapter from being part of a convolution.

        Raises:
            FssError: always.
        """
        raise FssError(
            "finetune=adapter adds layers with a ReLU, which no plain convolution equals: its models cannot be merged. "
            "Load it without merging: fss.load(path)."
        )


class Adapter(Strategy):
    """Add a bottleneck x + up(ReLU(down(x))) after each stage and train nothing else (SVF paper, Tables 10 and 13).

    The paper says only that adapters stand after the stages, and reports that they break the features (20.71 mIoU,
    frozen 65.07). Here they are those of Houlsby et al. (arXiv 1902.00751) with 1x1 convolutions, and start as the
    identity.
    """

    name: ClassVar[str] = "adapter"
    mergeable: ClassVar[bool] = False

    def __init__(self, stages: Sequence[int] = (1, 2, 3, 4), reduction: int = 4) -> None:
        """Choose where and how large.

        Args:
            stages: stages that an adapter follows, 0 (stem) to 4.
            reduction: channels of the stage over those of the bottleneck.

        Raises:
            FssError: if a stage does not exist, or the reduction is no whole number from 1 up.
        """
        self.stages = check_stages(stages)
        if not isinstance(reduction, int) or isinstance(reduction, bool) or reduction < 1:
            raise FssError(f"finetune.reduction={reduction} is not allowed: give a whole number from 1 up, as 4.")
        self.reduction = reduction

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Append a bottleneck to each stage that has none.

        Args:
            backbone: changed in place.

        Returns:
            Nothing worth recording.

        Raises:
            FssError: if a stage is no sequence of layers, or its width is not known.
        """
        for index in self.stages:
            stage = backbone.stage(index)
            if not isinstance(stage, nn.Sequential) or index >= len(backbone.channels):
                raise FssError(
                    "finetune=adapter needs a backbone of stages whose widths are known, as those of fss.backbones. "
                    "On other modules use svf, scale_out or lora."
                )
            if not isinstance(stage[-1], Bottleneck):
                channels = backbone.channels[index]
                like = next(stage.parameters())
                stage.append(Bottleneck(channels, max(1, channels // self.reduction), like))
        return []

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the parameters of the bottlenecks."""
        for site in find(backbone, self.stages, lambda m: isinstance(m, Bottleneck)):
            yield from site.module.parameters()
