"""Adapters: residual bottlenecks after the stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import ClassVar

from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers.surgery import check_stages, find
from fss.finetune.layers.tuned import TunedLayer
from fss.types import StagedBackbone


class Bottleneck(TunedLayer):
    """A residual bottleneck of 1x1 convolutions: x + up(ReLU(down(x))); the identity at first because up is zero.

    Attributes:
        down: convolution from C to h channels.
        up: convolution from h to C channels.
    """

    def __init__(self, channels: int, hidden: int, like: nn.Parameter) -> None:
        """Build the layers.

        Args:
            channels: number of channels C.
            hidden: number of bottleneck channels h.
            like: parameter whose device and dtype are used.
        """
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1, device=like.device, dtype=like.dtype)
        self.relu = nn.ReLU()
        self.up = nn.Conv2d(hidden, channels, 1, device=like.device, dtype=like.dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]  # bias=True is the default

    def forward(self, x: Tensor) -> Tensor:
        """Apply the adapter.

        Args:
            x: (N, C, h, w).

        Returns:
            (N, C, h, w).
        """
        adapted: Tensor = self.up(self.relu(self.down(x)))
        return x + adapted

    @property
    def plain_size(self) -> int:
        """0, because the plain backbone has no such layer."""
        return 0

    def merge(self) -> nn.Module:
        """Always raise: an adapter contains a ReLU, so no convolution can replace it.

        Raises:
            FssError: always.
        """
        raise FssError(
            "finetune=adapter adds layers with a ReLU, which no plain convolution equals: its models cannot be merged. "
            "Load it without merging: fss.load(path)."
        )


class Adapter(Strategy):
    """Add a bottleneck x + up(ReLU(down(x))) after each stage and train nothing else (SVF paper, Tables 10 and 13).

    The paper says only that adapters follow the stages, and reports that they break the features (20.71 mIoU against
    65.07 frozen). These are the adapters of Houlsby et al. (arXiv 1902.00751) with 1x1 convolutions, initialised to
    the identity.
    """

    name: ClassVar[str] = "adapter"
    mergeable: ClassVar[bool] = False

    def __init__(self, stages: Sequence[int] = (1, 2, 3, 4), reduction: int = 4) -> None:
        """Choose the stages and the bottleneck width.

        Args:
            stages: stages that get an adapter, 0 (stem) to 4.
            reduction: ratio of the stage's channels to the bottleneck's.

        Raises:
            FssError: if a stage does not exist, or ``reduction`` is not an integer >= 1.
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
            An empty list.

        Raises:
            FssError: if stages are not called one by one, or one is not an ``nn.Sequential`` or of unknown width.
        """
        for index in self.stages:
            stage = backbone.stage(index)
            appendable = isinstance(stage, nn.Sequential) and len(stage) > 0 and index < len(backbone.channels)
            if not backbone.stepwise or not appendable:
                raise FssError(
                    f"finetune=adapter needs a backbone whose stages are nn.Sequential, give maps of known widths and "
                    f"run one by one, as ResNet and VGG; stage {index} of this one does not. On it use svf, scale_out "
                    "or lora."
                )
            assert isinstance(stage, nn.Sequential)
            if not isinstance(stage[-1], Bottleneck):
                channels = backbone.channels[index]
                like = next(chain(stage.parameters(), (p for _, p in backbone.named_parameters())))
                stage.append(Bottleneck(channels, max(1, channels // self.reduction), like))
        return []

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the parameters of the bottlenecks."""
        for site in find(backbone, self.stages, lambda m: isinstance(m, Bottleneck)):
            yield from site.module.parameters()
