"""ASGNet: an object as several prototypes, of which every query position takes the most similar one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fss.errors import FssError
from fss.methods.releases import STAGED, KeyMap, Pairs, Release, Released, deep_stem
from fss.methods.separable import EncodedEpisode, Encoding, SeparableHead
from fss.methods.superpixels import cluster, full_cells, nearest_cells, place_seeds
from fss.nn.aspp import ASPP
from fss.nn.conv_stacks import classifier, reduction, refinement
from fss.nn.dropout import SharedDropout, SharedDropout2d
from fss.nn.enrichment import FeatureEnrichment
from fss.nn.middle_features import middle_features
from fss.nn.prototype import masked_average, support_mask
from fss.nn.resize import up
from fss.types import AuxLogits, EpisodeFeatures, FeatureSpec, HeadOutput

Decoder = Literal["pyramid", "aspp"]
FINE = 1
"""Stage whose features the decoder of the ASPP form adds."""
EPS = 1e-7
"""Smallest norm in a cosine."""
SKIPS = 3

_DECIDING = ("method.prototypes", "method.prototype_area", "method.test_rounds")
"""Options that neither names nor shapes tell."""
_COCO = "method.bins=[1.0,0.5,0.25,0.125]"
_PYRAMID: Pairs = (
    ("corr_conv.", "head.decoder.enrich.init_merge."),
    *((f"{name}.", f"head.decoder.enrich.{name}.") for name in ("alpha_conv", "beta_conv", "inner_cls")),
    *((f"{name}.", f"head.decoder.{name}.") for name in ("res1", "res2", "cls")),
)
_ASPP: Pairs = (
    ("corr_conv.", "head.decoder.merge."),
    *(
        (f"skip{n + 1}.{theirs}.", f"head.decoder.skips.{n}.{ours}.")
        for n in range(SKIPS)
        for theirs, ours in ((1, 0), (3, 2))
    ),
    ("ASPP.layer6_", "head.decoder.aspp.branches."),
    ("ASPP.layer7.", "head.decoder.reduce."),
    ("decoder.conv1.", "head.decoder.fine.0."),
    ("decoder.bn1.", "head.decoder.fine.1."),
    ("decoder.last_conv.", "head.decoder.last."),
    *((f"{name}.", f"head.decoder.{name}.") for name in ("cls", "cls_aux")),
)


def _release(source: str, pairs: Pairs, decoder: Decoder, telling: tuple[str, ...]) -> Release:
    def options(released: Released) -> list[str]:
        coco = [_COCO] if released.data == "coco" and decoder == "pyramid" else []
        return [*deep_stem(released.backbone, "uniform"), f"method.decoder={decoder}", *coco]

    return Release(
        source,
        lambda backbone: KeyMap((*STAGED, ("down_conv.", "head.down_conv."), *pairs)),
        ("resnet50", "resnet101"),
        options,
        lambda released: _DECIDING + (("method.bins",) if decoder == "pyramid" else ()),
        telling=telling,
    )


class ASGNet(SeparableHead):
    """Adaptive superpixel-guided network (Li et al., CVPR 2021, arXiv 2104.01893).

    The features of a support inside its mask are clustered into a number of prototypes that grows with the area of the
    object; small objects have one, their masked average. Every position of the query takes the most similar prototype
    of all supports. Query, chosen prototypes and the sum of the similarities to all of them are decoded: by PFENet's
    feature enrichment, or (``aspp``) by atrous pooling and the features of stage 1.

    The order of the supports does not matter, up to rounding. Repeating them does: the similarities are summed, so that
    their number decides about the scale of the map. A head must be tested with as many supports as it was trained with;
    the result says so if it was not.

    No gradient reaches the supports: neither clustering nor masked averages pass any, as in the release.

    Departures: the release computes the backbone under no-grad; here gradients reach it through the query unless
    ``detach`` is given. Where the mask has seeds, but no position lies wholly inside, the release divides zero by zero;
    here the masked average stands in.
    """

    name: ClassVar[str] = "asgnet"
    releases: ClassVar[tuple[Release, ...]] = (
        _release("asgnet", _PYRAMID, "pyramid", ("corr_conv.0.", "alpha_conv.")),
        _release("asgnet_aspp", _ASPP, "aspp", ("corr_conv.0.", "skip1.")),
    )

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        decoder: Decoder = "pyramid",
        bins: Sequence[float] = (60, 30, 15, 8),
        dropout: float = 0.5,
        aux_weight: float = 1.0,
        prototypes: int = 5,
        prototype_area: int = 100,
        train_rounds: int = 10,
        test_rounds: int = 5,
        shot: int = 1,
        detach: bool = False,
    ) -> None:
        """Build the head.

        Args:
            channels: output channels of the backbone's stages 0 to 4.
            width: channels within the head, a multiple of 4; 256 in the paper.
            decoder: ``pyramid``, of which the paper reports results, or ``aspp``, which the release has too.
            bins: grid sizes of the pyramid, fine to coarse; up to 1.0 a fraction of the feature map's height.
            dropout: share of reduced channels dropped in training; 0.5 in the release.
            aux_weight: weight of the auxiliary loss; that of the pyramid is the mean over its grids.
            prototypes: largest number of prototypes of a support; 5 in the release.
            prototype_area: positions of the object per prototype; 100 in the release.
            train_rounds: rounds of the clustering in training; 10 in the release.
            test_rounds: the same in a test; 5 in the release.
            shot: number of supports that it is trained with.
            detach: stop gradients before the head, as in the release, whose backbone never trains.

        Raises:
            FssError: if an argument is not one of the allowed values.
        """
        if decoder not in ("pyramid", "aspp"):
            raise FssError(f"method.decoder={decoder!r}: choose pyramid or aspp")
        if width % 4:
            raise FssError(f"method.width={width}: stage 1 is given a quarter of it; give a multiple of 4, such as 256")
        least = {"prototypes": prototypes, "prototype_area": prototype_area}
        for name, value in {**least, "train_rounds": train_rounds, "test_rounds": test_rounds}.items():
            if value < (name in least):
                raise FssError(f"method.{name}={value}: give {1 if name in least else 0} or more")
        super().__init__(FeatureSpec(stages=(2, 3) if decoder == "pyramid" else (FINE, 2, 3)))
        self.shot, self.detach = shot, detach
        self.prototypes, self.prototype_area = prototypes, prototype_area
        self.train_rounds, self.test_rounds = train_rounds, test_rounds
        self.down_conv = nn.Sequential(
            nn.Conv2d(channels[2] + channels[3], width, 1, bias=False), SharedDropout2d(dropout)
        )
        self.decoder: Pyramid | Atrous = (
            Pyramid(width, bins, aux_weight)
            if decoder == "pyramid"
            else Atrous(width, channels[FINE], dropout, aux_weight)
        )

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            features: stages 2 and 3, with ``decoder="aspp"`` stage 1 too.

        Returns:
            logits (B, 2, h, w) at the resolution of stage 3, or with ``decoder="aspp"`` of stage 1; and those of the
            auxiliary losses.

        Raises:
            FssError: if gradients are stopped although the backbone is tuned.
        """
        maps = features.query
        if self.detach:
            maps = _detached(maps)
        labels = features.support_labels.cpu()
        with torch.no_grad():
            shots = [
                self.down_conv(middle_features({i: m[:, k] for i, m in features.support.items()}))
                for k in range(labels.shape[1])
            ]
            chosen = [
                torch.cat([self._prototypes(shot[b], label[k]) for k, shot in enumerate(shots)])
                for b, label in enumerate(labels)
            ]
        return self._decoded(self.down_conv(middle_features(maps)), chosen, maps.get(FINE))

    def encode_query(self, maps: Mapping[int, Tensor]) -> Encoding:
        """Return ``reduced`` features (C, h, w) and, with ``decoder="aspp"``, those of stage 1 as ``fine``."""
        encoding = {"reduced": self.down_conv(middle_features(maps))[0]}
        return {**encoding, "fine": maps[FINE][0]} if FINE in self.spec.stages else encoding

    def encode_support(self, maps: Mapping[int, Tensor], labels: Tensor) -> Encoding:
        """Return ``prototypes``, (n, C)."""
        with torch.no_grad():
            return {"prototypes": self._prototypes(self.down_conv(middle_features(maps))[0], labels[0].cpu())}

    def forward_encoded(self, episode: EncodedEpisode) -> HeadOutput:
        """Score one batch of episodes from their encodings."""
        query = torch.stack([q["reduced"] for q in episode.query])
        fine = torch.stack([q["fine"] for q in episode.query]) if FINE in self.spec.stages else None
        return self._decoded(query, [torch.cat([s["prototypes"] for s in row]) for row in episode.supports], fine)

    def notes(self, tuned: bool, shot: int = 1) -> list[str]:
        """Return where gradients pass, and whether the head was trained with another number of supports."""
        found = super().notes(tuned, shot)
        if shot != self.shot:
            found.append(
                f"ASGNet was trained with {self.shot} support(s) and tested with {shot}: it sums similarities over the "
                "prototypes of all supports, and must be trained with as many as in the test"
            )
        return found

    def _prototypes(self, features: Tensor, label: Tensor) -> Tensor:
        """Return the prototypes of one support, (n, C), from its features (C, h, w) and its label (H, W) on the CPU."""
        size = (features.shape[1], features.shape[2])
        inside = label == 1
        seeds = place_seeds(nearest_cells(inside, size), self.prototypes, self.prototype_area)
        region = full_cells(inside, size).flatten().nonzero().flatten()
        if len(seeds) < 2 or not len(region):
            mask = support_mask(label.to(features.device), features.dtype)
            return masked_average(features[None], up(mask[None], size)).flatten(1)
        starts = seeds[:, 0] * size[1] + seeds[:, 1]
        rounds = self.train_rounds if self.training else self.test_rounds
        return cluster(features, region.to(features.device), starts.to(features.device), rounds)

    def _decoded(self, query: Tensor, prototypes: Sequence[Tensor], fine: Tensor | None) -> HeadOutput:
        pairs = [allocated(q, own) for q, own in zip(query, prototypes, strict=True)]
        guide, similarity = (torch.stack(part) for part in zip(*pairs, strict=True))
        output: HeadOutput = self.decoder(query, guide, similarity, fine)
        return output


def allocated(query: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Give every position its most similar prototype: the guided allocation of the paper.

    Args:
        query: (C, h, w).
        prototypes: (n, C).

    Returns:
        The chosen prototypes, (C, h, w), and the sum of the cosines to all of them, (1, h, w).
    """
    positions = query.flatten(1)
    norms = prototypes.norm(dim=1, keepdim=True).clamp(min=EPS) * positions.norm(dim=0).clamp(min=EPS)
    cosine = prototypes @ positions / norms
    guide = prototypes[cosine.argmax(dim=0)].T.reshape(query.shape)
    return guide, cosine.sum(dim=0).reshape(1, *query.shape[1:])


class Pyramid(nn.Module):
    """Decodes as PFENet does."""

    def __init__(self, width: int, bins: Sequence[float], aux_weight: float) -> None:
        """Build the layers.

        Args:
            width: channels of the features.
            bins: grid sizes, fine to coarse.
            aux_weight: weight of the mean of the grids' losses.

        Raises:
            FssError: if there is no grid, or a size is neither an integer nor a fraction up to 1.0.
        """
        super().__init__()
        if not bins or any(b <= 0 or (b > 1 and b != int(b)) for b in bins):
            raise FssError(
                f"method.bins={list(bins)}: give one or more sides of grids, whole numbers above 1 or shares of the "
                "feature map up to 1.0, e.g. method.bins=[60,30,15,8] or method.bins=[1.0,0.5,0.25,0.125]"
            )
        self.share = aux_weight / len(bins)
        self.enrich = FeatureEnrichment(width, bins)
        self.res1 = reduction(len(bins) * width, width)
        self.res2 = refinement(width)
        self.cls = classifier(width)

    def forward(self, query: Tensor, guide: Tensor, similarity: Tensor, fine: Tensor | None) -> HeadOutput:
        """Score a batch.

        Args:
            query: (B, C, h, w).
            guide: prototypes of its positions, (B, C, h, w).
            similarity: (B, 1, h, w).
            fine: unused.

        Returns:
            logits (B, 2, h, w), and one map per grid for the auxiliary losses.
        """
        merged, scores = self.enrich(query, guide, similarity)
        x = self.res1(merged)
        logits: Tensor = self.cls(self.res2(x) + x)
        return HeadOutput(logits, [AuxLogits(f"aux{i}", s, "query", self.share) for i, s in enumerate(scores, 1)])


class Atrous(nn.Module):
    """Decodes by residual blocks, atrous pooling and the features of stage 1."""

    def __init__(self, width: int, fine: int, dropout: float, aux_weight: float) -> None:
        """Build the layers.

        Args:
            width: channels of the features.
            fine: channels of stage 1.
            dropout: share of values or channels dropped in training.
            aux_weight: weight of the auxiliary loss.
        """
        super().__init__()
        self.aux_weight = aux_weight
        self.merge = nn.Sequential(
            nn.Conv2d(2 * width + 1, width, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            SharedDropout2d(dropout),
        )
        self.skips = nn.ModuleList(refinement(width)[:-1] for _ in range(SKIPS))
        self.aspp = ASPP(width, dropout)
        self.reduce = nn.Sequential(nn.Conv2d(5 * width, width, 1), nn.ReLU(inplace=True), SharedDropout(dropout))
        self.fine = nn.Sequential(
            nn.Conv2d(fine, width // 4, 1, bias=False), nn.BatchNorm2d(width // 4), nn.ReLU(inplace=True)
        )
        self.last = nn.Sequential(
            nn.Conv2d(width + width // 4, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            SharedDropout(dropout),
        )
        self.cls = classifier(width)
        self.cls_aux = classifier(width)

    def forward(self, query: Tensor, guide: Tensor, similarity: Tensor, fine: Tensor | None) -> HeadOutput:
        """Score a batch.

        Args:
            query: (B, C, h, w).
            guide: prototypes of its positions, (B, C, h, w).
            similarity: (B, 1, h, w).
            fine: features of stage 1, (B, C1, H, W).

        Returns:
            logits (B, 2, H, W), and those of the auxiliary loss, (B, 2, h, w).
        """
        assert fine is not None
        x = self.merge(torch.cat([query, guide, similarity], dim=1))
        for skip in self.skips:
            x = x.relu()
            x = x + skip(x)
        x = self.reduce(self.aspp(x))
        own = self.fine(fine)
        joined = torch.cat([up(x, (own.shape[-2], own.shape[-1])), own], dim=1)
        logits: Tensor = self.cls(self.last(joined))
        return HeadOutput(logits, [AuxLogits("aux", self.cls_aux(x), "query", self.aux_weight)])


def _detached(maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
    if any(m.requires_grad for m in maps.values()):
        raise FssError(
            "method.detach=true lets no gradient reach the backbone, which this fine-tuning strategy tunes: it would "
            "train nothing. Leave detach out, or use finetune=freeze."
        )
    return {i: m.detach() for i, m in maps.items()}
