"""Bias tuning: only biases train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from fss.finetune.base import Strategy
from fss.finetune.layers.surgery import check_stages, stage_modules
from fss.types import StagedBackbone


class Bias(Strategy):
    """Train every bias: y = W x + bias, of norms, convolutions and linear layers (SVF paper, Tables 10 and 13).

    This is BitFit (arXiv 2106.10199), which trains all biases of a transformer's encoder: those of query, key, value
    and output of attention, of both linear layers of the MLP, and of LayerNorm. Here they are the parameters named
    ``bias`` and those whose names end so, as attention's ``in_proj_bias`` and ``q_bias``; tables of relative positions
    (``relative_position_bias_table``) are none. ResNets have biases only in batch norm, so there it equals ``bn`` with
    ``affine=[bias]``, and the paper prints equal numbers for both. VGG's convolutions have biases too.
    """

    name: ClassVar[str] = "bias"
    wanted = "bias"

    def __init__(self, stages: Sequence[int] = (0, 1, 2, 3, 4)) -> None:
        """Choose what trains.

        Args:
            stages: stages whose biases train, 0 (stem) to 4.

        Raises:
            FssError: if a stage does not exist.
        """
        self.stages = check_stages(stages)

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the biases of the chosen stages."""
        for module in stage_modules(backbone, self.stages):
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias" or name.endswith("_bias"):  # in_proj_bias, q_bias, v_bias of attention
                    yield parameter
