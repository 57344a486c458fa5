"""The baseline head of the SVF paper: prototype, prior mask and ASPP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fss.errors import FssError
from fss.methods.masked_view import MaskedView, masked_view
from fss.methods.releases import PSPNET, STAGED, KeyMap, Pairs, Release, Released, Shapes, deep_stem
from fss.methods.separable import EncodedEpisode, Encoding, SeparableHead
from fss.nn.aspp import ASPP
from fss.nn.dropout import SharedDropout2d
from fss.nn.guidance import guidance, guidance_of, support_parts
from fss.nn.middle_features import middle_features
from fss.nn.shot_mean import ShotAggregation, aggregate
from fss.types import EpisodeFeatures, FeatureSpec, HeadOutput

META_HEAD: Pairs = (
    ("down_query.", "head.down_query."),
    ("down_supp.", "head.down_supp."),
    ("init_merge.", "head.init_merge."),
    ("ASPP_meta.layer6_", "head.aspp.branches."),
    ("res1_meta.", "head.res1."),
    ("res2_meta.", "head.res2."),
    ("cls_meta.", "head.cls."),
)
"""Names of the meta learner in the releases of BAM and SVF."""


def _options(released: Released) -> list[str]:
    return [*deep_stem(released.backbone, "torchvision"), "method.shot_aggregation=sum"]


def _deciding(released: Released) -> tuple[str, ...]:
    return ("method.shot_aggregation",) if released.shot > 1 else ()


def _weighing(released: Released) -> Shapes:
    """Return BAM's network for weighing several supports, which the SVF release's baseline also contains."""
    shot = released.shot
    layers = {"kshot_rw.0": (2, shot), "kshot_rw.2": (shot, 2)} if shot > 1 else {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (c_out, c_in) in layers.items():
        shapes |= {f"{name}.weight": (c_out, c_in, 1, 1), f"{name}.bias": (c_out,)}
    return shapes


class Baseline(SeparableHead):
    """BAM's meta learner without the base learner and gating (SVF paper, section 4.1; arXiv 2206.06122).

    The release sums prior mask and prototype over shots without dividing, so a head trained with one shot is useless
    with five; ``shot_aggregation="sum"`` reproduces this, the default is the mean. The release also leaves
    ``down_query`` untrained; this is an option of the recipe (``recipe.untrained``), not of the head.
    """

    name: ClassVar[str] = "baseline"
    releases: ClassVar[tuple[Release, ...]] = (
        Release(
            "svf",
            lambda backbone: KeyMap(STAGED + META_HEAD, unused=("kshot_rw.",)),
            PSPNET,
            _options,
            _deciding,
            decomposed=True,
            unread=_weighing,
            telling=("ASPP_meta.",),
        ),
    )

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        shot_aggregation: ShotAggregation = "mean",
        dropout: float = 0.5,
        support_view: MaskedView = "masked_before_stage4",
    ) -> None:
        """Build the head.

        Args:
            channels: output channels of the backbone's stages 0 to 4.
            width: channels within the head; 256 in the paper.
            shot_aggregation: how the K supports are combined.
            dropout: share of reduced channels dropped in training; 0.5 in the release.
            support_view: where the supports are masked: before stage 4 as in the release, or ``masked_image``.

        Raises:
            FssError: if ``shot_aggregation`` or ``support_view`` is not one of the allowed values.
        """
        super().__init__(FeatureSpec(stages=(2, 3, 4), support_view=masked_view(support_view)))
        if shot_aggregation not in ("mean", "sum"):
            raise FssError(f"method.shot_aggregation={shot_aggregation!r}: choose mean, or sum as in the SVF release")
        self.shot_aggregation = shot_aggregation
        middle = channels[2] + channels[3]
        self.down_query = _reduction(middle, width, dropout)
        self.down_supp = _reduction(middle, width, dropout)
        self.init_merge = nn.Sequential(nn.Conv2d(2 * width + 1, width, 1, bias=False), nn.ReLU(inplace=True))
        self.aspp = ASPP(width)
        self.res1 = nn.Sequential(nn.Conv2d(5 * width, width, 1, bias=False), nn.ReLU(inplace=True))
        self.res2 = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
        )
        self.cls = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            SharedDropout2d(0.1),
            nn.Conv2d(width, 2, 1),
        )

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            features: stages 2, 3 and 4; supports masked as ``support_view`` says.

        Returns:
            logits (B, 2, h, w) at the resolution of stage 3.
        """
        prototypes, priors = guidance(features, self.down_supp)
        return self._aggregated(self.down_query(middle_features(features.query)), prototypes, priors)

    def encode_query(self, maps: Mapping[int, Tensor]) -> Encoding:
        """Return reduced and high-level features: ``reduced`` (C, h, w) and ``high`` (C4, h, w)."""
        return {"reduced": self.down_query(middle_features(maps))[0], "high": maps[4][0]}

    def encode_support(self, maps: Mapping[int, Tensor], labels: Tensor) -> Encoding:
        """Return the encoding made by :func:`fss.nn.guidance.support_parts`."""
        return support_parts(maps, labels, self.down_supp)

    def forward_encoded(self, episode: EncodedEpisode) -> HeadOutput:
        """Score one batch of episodes from their encodings."""
        return self._aggregated(*self._guided(episode))

    def _guided(self, episode: EncodedEpisode) -> tuple[Tensor, Tensor, Tensor]:
        """Return reduced queries (B, C, h, w), prototypes (B, K, C, 1, 1) and prior masks (B, K, 1, h, w)."""
        reduced = torch.stack([q["reduced"] for q in episode.query])
        high = [q["high"] for q in episode.query]
        return reduced, *guidance_of(high, episode.supports, (reduced.shape[-2], reduced.shape[-1]))

    def _aggregated(self, query: Tensor, prototypes: Tensor, priors: Tensor) -> HeadOutput:
        prototype, prior = aggregate(prototypes, self.shot_aggregation), aggregate(priors, self.shot_aggregation)
        return HeadOutput(self.decode(query, prototype, prior))

    def decode(self, query: Tensor, prototype: Tensor, prior: Tensor) -> Tensor:
        """Segment the query.

        Args:
            query: reduced query features, (B, C, h, w).
            prototype: prototype of the supports, (B, C, 1, 1).
            prior: prior mask, (B, 1, h, w).

        Returns:
            logits (B, 2, h, w).
        """
        merged = torch.cat([query, prototype.expand_as(query), prior], dim=1)
        x = self.res1(self.aspp(self.init_merge(merged)))
        logits: Tensor = self.cls(self.res2(x) + x)
        return logits


def _reduction(channels: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.ReLU(inplace=True), SharedDropout2d(dropout))
