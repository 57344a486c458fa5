"""BAM: a meta learner whose background prediction is corrected by a base learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fss.methods.base_ensemble import LOW, BaseEnsemble
from fss.methods.baseline import META_HEAD, Baseline
from fss.methods.masked_view import MaskedView
from fss.methods.releases import PSPNET, STAGED, STAGES, KeyMap, Pairs, Release, deep_stem
from fss.methods.separable import EncodedEpisode, Encoding
from fss.nn.gram import gram, gram_distance
from fss.nn.guidance import guidance
from fss.nn.middle_features import middle_features
from fss.nn.resize import up
from fss.types import AuxLogits, EpisodeFeatures, HeadOutput

_HEAD: Pairs = (
    *META_HEAD,
    ("gram_merge.", "head.gram_merge."),
    ("cls_merge.", "head.cls_merge."),
    ("kshot_rw.", "head.kshot_rw."),
    ("learner_base.0.", "companion.head.ppm."),
    ("learner_base.1.", "companion.head.cls."),
)
_SECOND: Pairs = tuple((f"layer{i}p.", f"companion.backbone.layer{i}.") for i in STAGES)
"""The SVF release stores the base branch's backbone separately."""


def _release(source: str, keys: KeyMap, telling: tuple[str, ...]) -> Release:
    return Release(
        source,
        lambda backbone: keys,
        PSPNET,
        lambda released: deep_stem(released.backbone, "uniform"),
        decomposed=source == "svf",
        telling=telling,
        classes="learner_base.1.4.bias",
    )


class BAM(BaseEnsemble, Baseline):
    """Base and meta learners together (Lang et al., CVPR 2022, arXiv 2203.07615, equations 4 to 9).

    The meta learner is the baseline's head. The base learner is not part of the head: its logits arrive in the
    extras. With several supports, a small network weighs them by style distance; it works only for the number of
    supports it was built for.

    The releases differ: BAM's computes prior mask and psi from a frozen backbone; in SVF's, gradients reach the tuned
    parameters through both. Here this depends on the fine-tuning strategy.
    """

    name: ClassVar[str] = "bam"
    releases: ClassVar[tuple[Release, ...]] = (
        _release("svf", KeyMap(STAGED + _HEAD + _SECOND), ("layer0p.", "gram_merge.", "ASPP_meta.")),
        _release(
            "bam", KeyMap(STAGED + _HEAD, shared=(("companion.backbone.", "backbone."),)), ("gram_merge.", "ASPP_meta.")
        ),
    )
    scores: ClassVar[Literal["logits", "shares"]] = "shares"

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        dropout: float = 0.5,
        shot: int = 1,
        kshot_hidden: int = 2,
        meta_weight: float = 1.0,
        base_weight: float = 1.0,
        exclude_own: bool = True,
        support_view: MaskedView = "masked_before_stage4",
    ) -> None:
        """Build the head.

        Args:
            channels: output channels of the backbone's stages 0 to 4.
            width: channels within the meta learner; 256 in the paper.
            dropout: share of reduced channels dropped in training; 0.5 in the release.
            shot: number of supports K.
            kshot_hidden: width of the network that weighs them; 0: a single layer that starts as the mean.
            meta_weight: weight of the meta learner's own loss.
            base_weight: weight of the base learner's loss, which has no gradient.
            exclude_own: in training, ignore the base learner's probability of the episode's own class, which stands
                in for a novel class. Validation on base classes always ignores it.
            support_view: where the supports are masked: before stage 4 as in both releases, or ``masked_image``; psi
                then compares the query with masked supports.

        Raises:
            FssError: if ``support_view`` is not one of the allowed values.
        """
        super().__init__(channels, width, "mean", dropout, support_view)
        extras = frozenset({"base_logits", "base_index"})
        self.spec = replace(self.spec, extras=extras)
        self.weights = (meta_weight, base_weight)
        self.join_base(shot, kshot_hidden, exclude_own)

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            features: stages 2, 3 and 4, supports masked as ``support_view`` says; in the extras ``base_logits`` (B,
                classes, h, w) and, in training, ``base_index``: position of each episode's class among the base
                classes, (B).

        Returns:
            The ensemble's scores (B, 2, h, w), linear in probabilities; ``branch_logits`` holds ``meta`` and ``base``.

        Raises:
            FssError: if the number of supports differs from the one the weights were trained for.
        """
        psi = self._style_distance(features)
        weights = self._shot_weights(psi)
        prototypes, priors = guidance(features, self.down_supp)
        query = self.down_query(middle_features(features.query))
        return self._weighed((query, prototypes, priors), weights, psi, features.extras)

    def encode_query(self, maps: Mapping[int, Tensor]) -> Encoding:
        """Return the baseline's encoding and ``gram``, the Gram matrix (C2, C2)."""
        return {**super().encode_query(maps), "gram": _style(maps)}

    def encode_support(self, maps: Mapping[int, Tensor], labels: Tensor) -> Encoding:
        """Return the baseline's encoding and ``gram``, the Gram matrix (C2, C2)."""
        return {**super().encode_support(maps, labels), "gram": _style(maps)}

    def forward_encoded(self, episode: EncodedEpisode) -> HeadOutput:
        """Score one batch of episodes from their encodings."""
        shots = zip(*episode.supports, strict=True)
        own = torch.stack([q["gram"] for q in episode.query])
        psi = gram_distance(own, [torch.stack([s["gram"] for s in shot]) for shot in shots])
        weights = self._shot_weights(psi)
        return self._weighed(self._guided(episode), weights, psi, episode.extras)

    def _weighed(
        self, guided: tuple[Tensor, Tensor, Tensor], weights: Tensor, psi: Tensor, extras: Mapping[str, Tensor]
    ) -> HeadOutput:
        """Score reduced queries given the prototype, prior mask, weight and psi of every shot."""
        query, prototypes, priors = guided
        over_maps = weights[:, :, None, None, None]
        meta = self.decode(query, (over_maps * prototypes).sum(dim=1), (over_maps * priors).sum(dim=1))
        base = extras["base_logits"]
        final = self._ensemble(meta, self._any_base(base, extras, meta), (weights * psi).sum(dim=1))
        aux = [
            AuxLogits("meta", meta, "query", self.weights[0]),
            AuxLogits("base", base, "base", self.weights[1]),
        ]
        return HeadOutput(final, aux, branch_logits={"meta": meta, "base": base})


def _style(maps: Mapping[int, Tensor]) -> Tensor:
    """Return the Gram matrix of one image at the resolution of stage 3, (C2, C2)."""
    return gram(up(maps[LOW], (maps[3].shape[-2], maps[3].shape[-1])))[0]
