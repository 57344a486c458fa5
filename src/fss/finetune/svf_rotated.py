"""SVF with randomly rotated singular vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import Tensor, nn

from fss.finetune.base import Strategy
from fss.finetune.layers.factorise import factored_layers, factorise, singular
from fss.finetune.layers.rotation import random_rotation
from fss.finetune.layers.surgery import check_stages
from fss.types import StagedBackbone


class SVFRotated(Strategy):
    """Replace W = U S V^T by U R S R^T V^T with a random rotation R, and train S or nothing (SVF paper, Tables 9, 24).

    The only strategy whose injection changes the network: S no longer scales its own singular vectors, which is the
    point of the paper's test. U R and R^T V^T are kept as the outer factors; R is drawn from ``rotation_seed`` and the
    layer's name at every injection.
    """

    name: ClassVar[str] = "svf_rotated"

    def __init__(self, stages: Sequence[int] = (2, 3, 4), train_s: bool = True, rotation_seed: int = 0) -> None:
        """Choose what trains.

        Args:
            stages: stages whose layers are rotated, 0 (stem) to 4.
            train_s: train S; false keeps the rotated backbone frozen.
            rotation_seed: seed of the rotations, independent of the run's ``seed``.

        Raises:
            FssError: if a stage does not exist.
        """
        self.stages = check_stages(stages)
        self.train_s = train_s
        self.trains_nothing = not train_s
        self.rotation_seed = rotation_seed

    def swap(self, backbone: StagedBackbone) -> list[str]:
        """Replace layers by U R, S and R^T V^T."""
        return factorise(backbone, self.stages, self._factors, exact=False).notes

    def _factors(self, weight: Tensor, groups: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
        U, S, V = singular(weight.double(), groups, name)
        rank = U.shape[1]
        R = random_rotation(rank, groups, self.rotation_seed, name, weight)
        left = U.reshape(groups, -1, rank) @ R
        right = R.mT @ V.reshape(groups, rank, -1)
        return left.reshape(U.shape).to(weight), S.to(weight), right.reshape(V.shape).to(weight)

    def trainable(self, backbone: StagedBackbone) -> Iterator[nn.Parameter]:
        """Yield S of the rotated layers, if it trains."""
        return (layer.S for layer in factored_layers(backbone, self.stages) if self.train_s)
