"""PFENet, the prior guided feature enrichment network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from fss.errors import FssError
from fss.methods.masked_view import MaskedView, masked_view
from fss.methods.releases import PSPNET, STAGED, KeyMap, Release, Released, deep_stem
from fss.methods.separable import EncodedEpisode, Encoding, SeparableHead
from fss.nn.conv_stacks import classifier, reduction, refinement
from fss.nn.enrichment import FeatureEnrichment
from fss.nn.guidance import guidance, guidance_of, support_parts
from fss.nn.middle_features import middle_features
from fss.types import AuxLogits, EpisodeFeatures, FeatureSpec, HeadOutput

_KEYS = KeyMap(
    (
        *STAGED,
        ("down_query.", "head.down_query."),
        ("down_supp.", "head.down_supp."),
        ("init_merge.", "head.enrich.init_merge."),
        ("alpha_conv.", "head.enrich.alpha_conv."),
        ("beta_conv.", "head.enrich.beta_conv."),
        ("inner_cls.", "head.enrich.inner_cls."),
        ("res1.", "head.res1."),
        ("res2.", "head.res2."),
        ("cls.", "head.cls."),
    )
)
_PASCAL, _COCO = "method.bins=[60,30,15,8]", "method.bins=[1.0,0.5,0.25,0.125]"


def _options(released: Released) -> list[str]:
    """Return dilation and grids, in which the releases of PFENet and of SVF differ."""
    own = released.source == "pfenet"
    dilation = deep_stem(released.backbone, "uniform" if own else "torchvision")
    return [*dilation, _COCO if own and released.data == "coco" else _PASCAL]


def _release(source: str) -> Release:
    return Release(
        source,
        lambda backbone: _KEYS,
        PSPNET,
        _options,
        lambda released: ("method.bins",),
        decomposed=source == "svf",
        telling=("alpha_conv.",),
    )


class PFENet(SeparableHead):
    """PFENet of Tian et al. (TPAMI 2020, arXiv 2008.01449): prior mask, prototype and feature enrichment.

    Several supports are averaged, so no parameter depends on their number. PFENet's release and the SVF release have
    the same modules and names. They differ in ``bins`` on COCO (fractions of the feature map in PFENet's; 60, 30, 15, 8
    in SVF's), in the backbone's dilation and in its batch norm during training; see
    conf/experiment/release_pfenet.yaml.
    """

    name: ClassVar[str] = "pfenet"
    releases: ClassVar[tuple[Release, ...]] = (_release("svf"), _release("pfenet"))

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        bins: Sequence[float] = (60, 30, 15, 8),
        dropout: float = 0.5,
        aux_weight: float = 1.0,
        support_view: MaskedView = "masked_before_stage4",
    ) -> None:
        """Build the head.

        Args:
            channels: output channels of the backbone's stages 0 to 4.
            width: channels within the head; 256 in the paper.
            bins: grid sizes of the enrichment, fine to coarse; up to 1.0 a fraction of the feature map's height.
            dropout: share of reduced channels dropped in training; 0.5 in both releases.
            aux_weight: weight of the mean of the grids' auxiliary losses.
            support_view: where the supports are masked: before stage 4 as in both releases, or ``masked_image``.

        Raises:
            FssError: if there is no grid, or a size is neither an integer nor a fraction up to 1.0, or
                ``support_view`` is not one of the allowed values.
        """
        super().__init__(FeatureSpec(stages=(2, 3, 4), support_view=masked_view(support_view)))
        if not bins or any(b <= 0 or (b > 1 and b != int(b)) for b in bins):
            raise FssError(
                f"method.bins={list(bins)}: give one or more sides of grids, whole numbers above 1 or shares of the "
                "feature map up to 1.0, e.g. method.bins=[60,30,15,8] or method.bins=[1.0,0.5,0.25,0.125]"
            )
        self.aux_weight = aux_weight
        middle = channels[2] + channels[3]
        self.down_query = reduction(middle, width, dropout)
        self.down_supp = reduction(middle, width, dropout)
        self.enrich = FeatureEnrichment(width, bins)
        self.res1 = reduction(len(bins) * width, width)
        self.res2 = refinement(width)
        self.cls = classifier(width)

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            features: stages 2, 3 and 4; supports masked as ``support_view`` says.

        Returns:
            logits (B, 2, h, w) at the resolution of stage 3, and one map per grid for the auxiliary losses.
        """
        query = self.down_query(middle_features(features.query))
        return self._enriched(query, *guidance(features, self.down_supp))

    def encode_query(self, maps: Mapping[int, Tensor]) -> Encoding:
        """Return reduced and high-level features: ``reduced`` (C, h, w) and ``high`` (C4, h, w)."""
        return {"reduced": self.down_query(middle_features(maps))[0], "high": maps[4][0]}

    def encode_support(self, maps: Mapping[int, Tensor], labels: Tensor) -> Encoding:
        """Return the encoding made by :func:`fss.nn.guidance.support_parts`."""
        return support_parts(maps, labels, self.down_supp)

    def forward_encoded(self, episode: EncodedEpisode) -> HeadOutput:
        """Score one batch of episodes from their encodings."""
        query = torch.stack([q["reduced"] for q in episode.query])
        size = (query.shape[-2], query.shape[-1])
        return self._enriched(query, *guidance_of([q["high"] for q in episode.query], episode.supports, size))

    def _enriched(self, query: Tensor, prototypes: Tensor, priors: Tensor) -> HeadOutput:
        merged, scores = self.enrich(query, prototypes.mean(dim=1), priors.mean(dim=1))
        x = self.res1(merged)
        logits: Tensor = self.cls(self.res2(x) + x)
        share = self.aux_weight / len(scores)
        return HeadOutput(logits, [AuxLogits(f"aux{i}", map_, "query", share) for i, map_ in enumerate(scores, 1)])
