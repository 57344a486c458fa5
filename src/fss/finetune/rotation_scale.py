"""A new diagonal in a randomly rotated output space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fss.finetune.base import Strategy
from fss.finetune.layers.factorise import factored_layers, factorise
from fss.finetune.layers.rotation import random_rotation
from fss.finetune.layers.surgery import check_stages
from fss.types import StagedBackbone


class RotationScale(Strategy):
    """Replace W by R S' R^T W and train only the diagonal S'; R is a random rotation (SVF paper, Tables 9 and 24).

    Tests whether any orthogonal basis works as well as the singular vectors. S' starts at 1, so injection does not
    change the network. R and R^T W are kept as the outer factors; R is drawn from ``rotation_seed`` and the layer's
    name at every injection, so files of tuned values hold only S'. Table 24 prints R' for R^T.
    """

    name: ClassVar[str] = "rotation_scale"

    def __init__(self, stages: Sequence[int] = (2, 3, 4), rotation_seed: int = 0) -> None:
        """Choose what trains.

        Args:
            stages: stages whose layers are changed, 0 (stem) to 4.
            rotation_seed: seed of the rotations, independent of the run's ``seed``.

        Raises:
            FssError: if a stage does not exist.
        """
        self.stages = check_stages(stages)
        self.rotation_seed = rotation_seed

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers by R, S' and R^T W."""
        return factorise(backbone, self.stages, self._factors).notes

    def _factors(self, weight: Tensor, groups: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
        rows = weight.shape[0] // groups
        R = random_rotation(rows, groups, self.rotation_seed, name, weight)
        rotated = R.mT @ weight.detach().double().reshape(groups, rows, -1)
        ones = torch.ones(weight.shape[0], device=weight.device, dtype=weight.dtype)
        return R.reshape(-1, rows).to(weight), ones, rotated.reshape(weight.shape).to(weight)

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield the diagonals."""
        return (layer.S for layer in factored_layers(backbone, self.stages))
