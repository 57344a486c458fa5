"""SVF with bounded singular values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fss.errors import FssError
from fss.finetune.base import Strategy
from fss.finetune.chains.memory import check_memory
from fss.finetune.layers.factored import FactoredLayer
from fss.finetune.layers.factorise import factored_layers, factorise
from fss.finetune.layers.surgery import check_stages
from fss.types import StagedBackbone

RULES = ("relative", "svb", "clamp")


class SVFBounded(Strategy):
    """Train S of W = U S V^T, and clamp it to an interval after every optimiser step.

    The SVF paper (section 3.2, arXiv 2206.06122) discusses such regularisers but uses none. With e = ``epsilon`` and
    S0 the pretrained values:

    - ``relative``: S0 / (1 + e) <= S <= S0 (1 + e), bounds relative to the pretrained values;
    - ``svb``: 1 / (1 + e) <= S <= 1 + e, singular value bounding as published (Jia et al., arXiv 1611.06013) for
      weights trained from scratch; it changes a pretrained network at its first step;
    - ``clamp``: S <= (1 + e) max(S0) in each layer and group, which limits only the large values.
    """

    name: ClassVar[str] = "svf_bounded"

    def __init__(
        self,
        stages: Sequence[int] = (2, 3, 4),
        rule: str = "relative",
        epsilon: float = 0.5,
        memory: str = "balanced",
    ) -> None:
        """Choose what trains and the interval.

        Args:
            stages: stages whose singular values train, 0 (stem) to 4.
            rule: ``relative``, ``svb`` or ``clamp``.
            epsilon: width of the interval, >= 0.
            memory: what the backward pass keeps, see :data:`fss.finetune.chains.memory.Memory`.

        Raises:
            FssError: if a stage or rule does not exist, or epsilon is not a finite number >= 0.
        """
        self.stages = check_stages(stages)
        if rule not in RULES:
            raise FssError(
                f"finetune.rule={rule} is not known: choose one of {', '.join(RULES)}, as finetune.rule=svb."
            )
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < float("inf"):
            raise FssError(f"finetune.epsilon={epsilon} is not allowed: give a number from 0 up, as 0.5.")
        self.rule = rule
        self.epsilon = float(epsilon)
        self.memory = check_memory(memory)

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers by their factors, and register the bounds as buffers."""
        done = factorise(backbone, self.stages)
        for one in done.layers:
            low, high = self._bounds(one.layer)
            one.layer.register_buffer("low", low)
            one.layer.register_buffer("high", high)
        return done.notes

    def _bounds(self, layer: FactoredLayer) -> tuple[Tensor, Tensor]:
        factor, initial = 1 + self.epsilon, layer.S.detach()
        if self.rule == "relative":
            return initial / factor, initial * factor
        if self.rule == "svb":
            return torch.full_like(initial, 1 / factor), torch.full_like(initial, factor)
        groups = initial.view(layer.geometry.groups, -1)
        largest = groups.amax(dim=1, keepdim=True).expand_as(groups).reshape(-1)
        return torch.full_like(initial, float("-inf")), largest * factor

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the singular values of the chosen stages."""
        return (layer.S for layer in factored_layers(backbone, self.stages))

    @torch.no_grad()
    def after_step(self, backbone: StagedBackbone) -> None:
        """Clamp every singular value to its interval."""
        for layer in factored_layers(backbone, self.stages):
            layer.S.clamp_(layer.get_buffer("low"), layer.get_buffer("high"))
