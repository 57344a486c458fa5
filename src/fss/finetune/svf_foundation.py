"""SVF as the published comparison of adaptation methods on foundation models applies it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from fss.finetune.base import Strategy
from fss.finetune.chains.memory import check_memory
from fss.finetune.layers.factorise import factored_layers
from fss.finetune.layers.surgery import check_stages, is_tuned
from fss.finetune.svf import SVF
from fss.types import StagedBackbone


class SVFFoundation(Strategy):
    """Train S of W = U S V^T in all layers, and everything in the backbone that is not part of such a layer.

    What "SVF" trains in the benchmark of arXiv 2401.11311 (section 3): its code factors every convolution and linear
    layer of the encoder, freezes U, V and their biases, and freezes nothing else. LayerNorm, LayerScale, class token
    and positional embedding train in full. They outweigh S: of a DINOv2 ViT-S cut to two blocks at 224 pixels, 107,904
    values train, 3,456 of them singular values and 98,688 positions. ``svf`` trains S alone, ``svf_ln`` S and norms.

    Departures:
        - Depthwise and grouped convolutions, which that code skips or gets wrong, are factored group by group.
        - Attention with stacked projections (``torch.nn.MultiheadAttention``, in CLIP's original) is factored; that
          code leaves its input projection a plain matrix, which then trains.
        - Batch norm keeps its running statistics; its weight and bias train.
        - That code starts from the decoder of a linear run and decays weights, S too, by 1e-4; here the recipe decides.
    """

    name: ClassVar[str] = "svf_foundation"

    def __init__(self, stages: Sequence[int] = (0, 1, 2, 3, 4), memory: str = "balanced") -> None:
        """Choose what trains.

        Args:
            stages: stages that train, 0 (stem) to 4; all of them as published.
            memory: what the backward pass keeps of layers of which only S trains, see
                :data:`fss.finetune.chains.memory.Memory`.

        Raises:
            FssError: if a stage or memory rule does not exist.
        """
        self.stages = check_stages(stages)
        self.memory = check_memory(memory)
        self._svf = SVF(self.stages)

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers by their factors."""
        return self._svf.swap(backbone)

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield S of the factored layers, then all parameters outside of them."""
        for layer in factored_layers(backbone, self.stages):
            yield layer.S
        for index in self.stages:
            yield from _outside(backbone.stage(index))


def _outside(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters that are not part of a tuned layer."""
    if not is_tuned(module):
        yield from module.parameters(recurse=False)
        for child in module.children():
            yield from _outside(child)
