"""How BAM and the heads after it correct the background of a meta learner by a base learner."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fss.commands import program
from fss.errors import FssError
from fss.methods.base import FewShotHead
from fss.nn.gram import style_distance
from fss.nn.resize import up
from fss.nn.shot_weights import ShotWeights
from fss.types import EpisodeFeatures

LOW = 2
"""Stage whose Gram matrices are compared."""


class BaseEnsemble(FewShotHead):
    """The ensemble of BAM (arXiv 2203.07615, equations 4 to 9), for a head that declares ``base_logits``.

    The head's own scores are adjusted by psi, the distance of the Gram matrices of query and supports, and its
    background by the probability that the base learner gives to base classes. With several supports, a small network
    weighs them by psi; it works only for the number of supports it was built for.

    Attributes:
        shot: number of supports K.
        exclude_own: see :meth:`join_base`.
        gram_merge: adjusts a probability by psi.
        cls_merge: adjusts the background by the base learner.
        kshot_rw: weighs several supports.
    """

    shot: int
    exclude_own: bool
    gram_merge: nn.Conv2d
    cls_merge: nn.Conv2d
    kshot_rw: ShotWeights | None

    def join_base(self, shot: int, kshot_hidden: int = 2, exclude_own: bool = True, restore: bool = True) -> None:
        """Build the layers of the ensemble; to be called once, in the constructor.

        Args:
            shot: number of supports K.
            kshot_hidden: width of the network that weighs them; 0: a single layer that starts as the mean.
            exclude_own: in training, ignore the base learner's probability of the episode's own class, which stands
                in for a novel class. Validation on base classes always ignores it.
            restore: see :class:`fss.nn.shot_weights.ShotWeights`.
        """
        self.shot = shot
        self.exclude_own = exclude_own
        self.gram_merge = _weighted_sum()
        self.cls_merge = _weighted_sum()
        self.add_module("kshot_rw", ShotWeights(shot, kshot_hidden, restore) if shot > 1 else None)

    def _style_distance(self, features: EpisodeFeatures) -> Tensor:
        """Return psi of every support, (B, K), at the resolution of stage 3 (VGG's stage 2 is larger)."""
        size = (features.query[3].shape[-2], features.query[3].shape[-1])
        supports = features.support[LOW]
        resized = up(supports.flatten(0, 1), size).reshape(*supports.shape[:3], *size)
        return style_distance(up(features.query[LOW], size), resized)

    def _shot_weights(self, psi: Tensor) -> Tensor:
        given = psi.shape[1]
        if given != self.shot:
            raise FssError(
                f"This {type(self).__name__} weighs {self.shot} support(s) and was given {given}: its weights belong "
                f"to one number of supports. Train another one: {program()} method={self.name} shot={given}"
            )
        return torch.ones_like(psi) if self.kshot_rw is None else self.kshot_rw(psi)

    def _any_base(self, base: Tensor, extras: Mapping[str, Tensor], meta: Tensor) -> Tensor:
        """Return the probability that a pixel belongs to any base class, (B, 1, h, w)."""
        probabilities = torch.softmax(base, dim=1)
        total = probabilities[:, 1:].sum(dim=1, keepdim=True)
        own = self._excluded(extras)
        if own is not None:
            own_probability = probabilities[torch.arange(len(own), device=own.device), own + 1].unsqueeze(1)
            total = total - own_probability.where((own >= 0)[:, None, None, None], 0)
        return up(total, (meta.shape[-2], meta.shape[-1]))

    def _excluded(self, extras: Mapping[str, Tensor]) -> Tensor | None:
        """Return the base classes that stand in for novel ones, (B), -1 for none; None if every class counts."""
        if not self.training:
            return extras.get("base_index")
        if not self.exclude_own:
            return None
        if "base_index" not in extras:
            raise FssError(
                f"In training {type(self).__name__} needs base_index, the position of each episode's class among the "
                "base classes. For a prediction call model.eval() first."
            )
        return extras["base_index"]

    def _ensemble(self, meta: Tensor, any_base: Tensor, psi: Tensor) -> Tensor:
        """Adjust the meta learner by style, then its background by the base learner (equations 7 and 9)."""
        probabilities = torch.softmax(meta, dim=1)
        distance = psi[:, None, None, None].expand_as(any_base)
        background = self.gram_merge(torch.cat([probabilities[:, :1], distance], dim=1))
        foreground = self.gram_merge(torch.cat([probabilities[:, 1:], distance], dim=1))
        background = self.cls_merge(torch.cat([background, any_base], dim=1))
        return torch.cat([background, foreground], dim=1)


def _weighted_sum() -> nn.Conv2d:
    """Return a trainable weighted sum of two maps, initialised to the first one."""
    conv = nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 0.0]).view_as(conv.weight))
    return conv
