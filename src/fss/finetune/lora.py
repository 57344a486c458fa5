"""Low-rank adaptation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.layers.beside import BesideWeight
from fss.finetune.layers.surgery import check_stages, find
from fss.finetune.layers.svd import rebuild
from fss.finetune.layers.swap import swap_layers
from fss.types import StagedBackbone


class LoRALayer(BesideWeight):
    """A frozen weight plus a trained low-rank weight: y = W x + (alpha / r) B A x + bias.

    Attributes:
        plain_weight: weight of the plain layer, (Co, ...); for a convolution (Co, Ci / groups, k, k).
        bias: (Co), or None.
        A: randomly initialised, (groups * r, ...); applied with the layer's kernel, stride, padding and dilation.
        B: initialised to zero, (Co, r).
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, rank: int, alpha: float) -> None:
        """Take over the parameters of a layer.

        Args:
            layer: the plain layer.
            rank: rank r of each group.
            alpha: numerator of the factor alpha / r.
        """
        super().__init__(layer)
        self.factor = alpha / rank
        weight = self.plain_weight.detach()
        self.A = nn.Parameter(weight.new_empty(self.geometry.groups * rank, *weight.shape[1:]))
        self.B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # torch's default initialisation

    def forward(self, x: Tensor) -> Tensor:
        """Apply both weights.

        Args:
            x: input of the plain layer.

        Returns:
            Output with the plain layer's shape.
        """
        inner = self.geometry.run(x, self.A, None)
        plain = self.geometry.run(x, self.plain_weight, self.bias)
        return plain + self.geometry.lift(inner, self.B * self.factor, None)

    @property
    def weight(self) -> Tensor:
        """The sum of both weights, (Co, ...)."""
        ones = self.A.new_full((self.A.shape[0],), self.factor)
        low = rebuild(self.B, ones, self.A, self.geometry.groups)
        return self.plain_weight + low.reshape(self.plain_weight.shape)


class LoRA(Strategy):
    """Replace W by W + (alpha / r) B A and train A and B (Hu et al., arXiv 2106.09685, section 4.1).

    The SVF paper does not test it. For a k x k convolution, A is a k x k convolution from Ci to r channels and B a 1x1
    convolution from r to Co, as in the PEFT library. PEFT is not used because its A ignores dilation, so stages 3 and
    4 could not be tuned.
    """

    name: ClassVar[str] = "lora"

    def __init__(self, stages: Sequence[int] = (2, 3, 4), rank: int = 8, alpha: float = 8.0) -> None:
        """Choose what trains.

        Args:
            stages: stages whose layers get a low-rank weight, 0 (stem) to 4.
            rank: rank r of each group of a convolution.
            alpha: numerator of the factor alpha / r.

        Raises:
            FssError: if a stage does not exist, the rank is not an integer >= 1, or alpha is not positive.
        """
        self.stages = check_stages(stages)
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
            raise FssError(f"finetune.rank={rank} is not allowed: give a whole number from 1 up, as 8.")
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
            raise FssError(f"finetune.alpha={alpha} is not allowed: give a number above 0, as 8.")
        self.rank = rank
        self.alpha = float(alpha)

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Add a low-rank weight to each convolution and linear layer; attention keeps its plain weights."""
        return swap_layers(backbone, self.stages, lambda _, layer: LoRALayer(layer, self.rank, self.alpha)).notes

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield A and B of every layer."""
        for site in find(backbone, self.stages, lambda m: isinstance(m, LoRALayer)):
            assert isinstance(site.module, LoRALayer)
            yield site.module.A
            yield site.module.B
