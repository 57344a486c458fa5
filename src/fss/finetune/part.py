"""Partial fine-tuning: convolutions of chosen kernel sizes in chosen stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers.surgery import LAST_STAGE, check_stages, convolutions
from fss.types import StagedBackbone


class Part(Strategy):
    """Train whole k x k convolutions W of chosen stages and kernel sizes (SVF paper, Tables 5, 6, 17 and 18).

    A convolution's bias (VGG has them) trains too. Batch norm stays fixed; the paper does not mention it.
    """

    name: ClassVar[str] = "part"

    def __init__(self, stages: Sequence[int] = (2, 3, 4), kernel_sizes: Sequence[int] = (1, 3)) -> None:
        """Choose what trains.

        Args:
            stages: stages to train, 0 (stem) to 4.
            kernel_sizes: sizes k of the square kernels that train.

        Raises:
            FssError: if a stage does not exist, or the sizes are not integers >= 1.
        """
        self.stages = check_stages(stages)
        if not kernel_sizes or any(not isinstance(k, int) or isinstance(k, bool) or k < 1 for k in kernel_sizes):
            raise FssError(
                f"finetune.kernel_sizes={list(kernel_sizes)} is not allowed: give one or more whole numbers from 1 up, "
                "as in 'finetune.kernel_sizes=[3]'."
            )
        self.kernel_sizes = tuple(kernel_sizes)

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield weight and bias of the chosen convolutions.

        Args:
            backbone: the backbone.

        Yields:
            The parameters.

        Raises:
            FssError: if there is no such convolution.
        """
        sites = convolutions(backbone, self.stages, self.kernel_sizes)
        if not sites:
            all_sites = convolutions(backbone, range(LAST_STAGE + 1))
            kernels = sorted({(s.stage, *tuple(getattr(s.module, "kernel_size"))) for s in all_sites})  # noqa: B009
            raise FssError(
                f"finetune.kernel_sizes={list(self.kernel_sizes)} with finetune.stages={list(self.stages)} fits no "
                f"convolution of this backbone. It has {', '.join(f'{h}x{w} in stage {s}' for s, h, w in kernels)}."
            )
        for site in sites:
            yield from site.module.parameters(recurse=False)
