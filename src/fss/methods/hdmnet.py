"""HDMNet: query and supports are matched at three resolutions, and a base learner corrects the background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss.errors import FssError
from fss.methods.base_ensemble import BaseEnsemble
from fss.methods.releases import STAGED, KeyMap, Pairs, Release, Released, deep_stem
from fss.nn.conv_stacks import reduction
from fss.nn.matching.cross import distillation
from fss.nn.matching.pyramid import HEADS, MatchingTransformer
from fss.nn.middle_features import middle_features
from fss.nn.prior import best_cosine
from fss.nn.prototype import masked_average, support_mask
from fss.nn.resize import up
from fss.types import AuxLogits, EpisodeFeatures, FeatureSpec, HeadOutput, ParamGroup

EMBEDDING = "base_embedding"
SHARPENED = 10.0
"""Factor of the similarity among the channels of the query's tokens (released constant)."""

ShotOrder = Literal["own", "release"]

_TRANSFORMER = ("transformer.mix_transformer.", "head.transformer.")


def _layer(theirs: str, ours: str) -> Pairs:
    """Return the names of a layer of the transformer."""
    attention = f"{theirs}attn.attn.linear_", f"{ours}attention."
    projections = ((f"{attention[0]}{name[0]}.", f"{attention[1]}{name}.") for name in ("query", "key", "value"))
    return (
        *projections,
        (f"{attention[0]}o.", f"{attention[1]}output."),
        (f"{theirs}attn.sr.", f"{ours}attention.reduce."),
        (f"{theirs}attn.norm.", f"{ours}attention.reduce_norm."),
        (f"{theirs}ffn.layers.", f"{ours}ffn."),
        (theirs, ours),
    )


def _keys() -> KeyMap:
    theirs, ours = _TRANSFORMER
    pairs: list[tuple[str, str]] = []
    for level in range(len(HEADS)):
        down = f"{theirs}down_sample_layers.{level}.", f"{ours}down.{level}."
        pairs += [(f"{down[0]}0.projection.", f"{down[1]}embed."), (f"{down[0]}0.norm.", f"{down[1]}embed_norm.")]
        for i in range(2):
            pairs += _layer(f"{down[0]}{i + 1}.", f"{down[1]}layers.{i}.")
        pairs.append((f"{down[0]}3.", f"{down[1]}norm."))
    for level in range(len(HEADS)):
        match = f"{theirs}match_layers.{level}.", f"{ours}match.{level}.", f"{ours}join.{level}."
        pairs += _layer(f"{match[0]}0.", match[1])
        pairs += [(f"{match[0]}1.conv.", f"{match[2]}0."), (f"{match[0]}1.bn.", f"{match[2]}1.")]
    pairs += [(f"{theirs}parse_layers.", f"{ours}parse."), (f"{theirs}cls.", f"{ours}cls.")]
    learner = (
        ("ppm.", "companion.head.ppm."),
        ("base_learnear.2.", "companion.head.cls.4."),
        ("cls.", "companion.head.cls."),
    )
    parts = [
        (f"{name}.", f"head.{name}.") for name in ("down_supp", "down_query", "gram_merge", "cls_merge", "kshot_rw")
    ]
    parts += [(f"{name}_merge.", f"head.merge_{own}.") for name, own in (("query", "query"), ("supp", "support"))]
    return KeyMap((*STAGED, *learner, *parts, *pairs), shared=(("companion.backbone.", "backbone."),))


def _options(released: Released) -> list[str]:
    return [*deep_stem(released.backbone, "uniform"), "method.shot_order=release"]


class HDMNet(BaseEnsemble):
    """Hierarchical dense correlation distillation (Peng et al., CVPR 2023, arXiv 2303.14652).

    A small transformer encodes query and masked supports at three resolutions. At each of them, every support position
    of the object divides its value among the query positions that resemble it; the mean similarity of the query to the
    object is taught by the next coarser one, and the coarsest by the mask. The scores of the decoder are corrected by a
    base learner as in BAM.

    Supports are seen with their background removed from the image. Their tokens form one list, whose order does not
    change the answer. Repeating all of them does: a query position adds up what support positions give it, so that its
    sum grows with their number, and the network that weighs several supports fits one number of them only. In the
    release the order matters too: it gives the weight made for the smallest style distance to the first support,
    whichever has that distance (``shot_order=release``, for its weights).

    Departures: the release runs the backbone under no-grad, so that nothing reaches it; here gradients do, through
    middle features, stage 4 and Gram matrices, unless ``detach`` is given. Nothing passes the frozen base learner, so
    that its embedding teaches the backbone nothing. Maps smaller than the keys of self-attention, on which the release
    fails, are completed by zeros.
    """

    name: ClassVar[str] = "hdmnet"
    scores: ClassVar[Literal["logits", "shares"]] = "shares"
    releases: ClassVar[tuple[Release, ...]] = (
        Release(
            "hdmnet",
            lambda backbone: _keys(),
            ("resnet50", "vgg16"),
            _options,
            lambda released: ("method.shot_order",),
            telling=(_TRANSFORMER[0], "base_learnear."),
            classes="base_learnear.2.bias",
        ),
    )

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        tokens: int = 64,
        dropout: float = 0.5,
        attention_dropout: float = 0.1,
        shot: int = 1,
        kshot_hidden: int = 2,
        meta_weight: float = 1.0,
        base_weight: float = 1.0,
        distillation_weight: float = 1.0,
        exclude_own: bool = True,
        transformer_lr: float = 0.1,
        shot_order: ShotOrder = "own",
        detach: bool = False,
    ) -> None:
        """Build the head.

        Args:
            channels: output channels of the backbone's stages 0 to 4.
            width: channels of the reduced features; 256 in the paper.
            tokens: channels within the transformer, a multiple of 8; 64 in the paper.
            dropout: share of reduced channels dropped in training; 0.5 in the release.
            attention_dropout: share dropped in the transformer in training; 0.1 in the release.
            shot: number of supports K.
            kshot_hidden: width of the network that weighs them; 0: a single layer that starts as the mean.
            meta_weight: weight of the loss of the scores before the ensemble.
            base_weight: weight of the base learner's loss, which has no gradient.
            distillation_weight: weight of the mean divergence between the resolutions.
            exclude_own: in training, ignore the base learner's probability of the episode's own class. Validation on
                base classes always ignores it.
            transformer_lr: learning rate of the transformer relative to that of the rest; 0.1 in the release.
            shot_order: ``own``: a weight belongs to the support that it was computed for; ``release``: to the one whose
                place it has among the ascending distances.
            detach: stop gradients before the head, as in the release, whose backbone never trains.

        Raises:
            FssError: if an argument is not one of the allowed values.
        """
        extras = {"base_logits", "base_index", EMBEDDING, f"support_{EMBEDDING}"}
        super().__init__(FeatureSpec((2, 3, 4), (), "masked_image", frozenset(extras), needs_query_label=True))
        if shot_order not in ("own", "release"):
            raise FssError(f"method.shot_order={shot_order!r}: choose own, or release for its own weights")
        if tokens < 8 or tokens % 8:
            raise FssError(
                f"method.tokens={tokens}: self-attention has up to 8 heads; give a multiple of 8, such as 64"
            )
        self.loss_weights = (meta_weight, base_weight, distillation_weight)
        self.transformer_lr, self.detach = transformer_lr, detach
        middle = channels[2] + channels[3]
        self.down_supp = reduction(middle, width, dropout)
        self.down_query = reduction(middle, width, dropout)
        self.merge_query = reduction(2 * width + 2, tokens)
        self.merge_support = reduction(2 * width, tokens)
        self.transformer = MatchingTransformer(tokens, attention_dropout)
        self.join_base(shot, kshot_hidden, exclude_own, restore=shot_order == "own")

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            features: stages 2, 3 and 4, the supports of masked images; in the extras ``base_logits`` (B, classes, h,
                w), ``base_embedding`` (B, C, h, w), ``support_base_embedding`` (B, K, C, h, w) and, in training,
                ``base_index``: position of each episode's class among the base classes, (B); in training the query
                label.

        Returns:
            The ensemble's scores (B, 2, h, w), linear in probabilities, at the resolution of stage 3; ``branch_logits``
            holds ``meta`` and ``base``, ``aux_losses`` in training ``distillation``.

        Raises:
            FssError: if the number of supports differs from the one the weights were trained for, or gradients are
                stopped although the backbone is tuned.
        """
        if self.detach:
            _refuse_tuned(features)
        psi = self._style_distance(features)
        weights = self._shot_weights(psi)
        query = self.down_query(middle_features(features.query))
        size = (query.shape[-2], query.shape[-1])
        masks = support_mask(features.support_labels, query.dtype)
        prototypes, tokens = [], []
        for k in range(masks.shape[1]):
            support = self.down_supp(middle_features({i: maps[:, k] for i, maps in features.support.items()}))
            cells = up(masks[:, k], (support.shape[-2], support.shape[-1]))
            prototypes.append(masked_average(support, cells))
            tokens.append(self.merge_support(torch.cat([support, prototypes[k].expand_as(support)], dim=1)))
        similarity = self._similarity(features, masks, size)
        prototype = torch.stack(prototypes).mean(dim=0).expand_as(query)
        merged = self.merge_query(torch.cat([query, prototype, SHARPENED * similarity], dim=1))
        meta, levels = self.transformer(merged, tokens, masks[:, :, 0], similarity)
        base = features.extras["base_logits"]
        final = self._ensemble(meta, self._any_base(base, features.extras, meta), (weights * psi).sum(dim=1))
        meta_weight, base_weight, distillation_weight = self.loss_weights
        output = HeadOutput(
            final,
            [AuxLogits("meta", meta, "query", meta_weight), AuxLogits("base", base, "base", base_weight)],
            branch_logits={"meta": meta, "base": base},
        )
        if self.training and features.query_label is not None:
            output.aux_losses["distillation"] = (distillation(levels, features.query_label), distillation_weight)
        return output

    def param_groups(self) -> list[ParamGroup]:
        """Return the transformer, which has a learning rate of its own, and the rest."""
        parts: dict[str, list[nn.Parameter]] = {"head": [], "transformer": []}
        for name, p in self.named_parameters():
            if p.requires_grad:
                parts["transformer" if name.startswith("transformer.") else "head"].append(p)
        return [
            ParamGroup("head", parts["head"]),
            ParamGroup("transformer", parts["transformer"], lr_factor=self.transformer_lr),
        ]

    def _similarity(self, features: EpisodeFeatures, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the best cosine with the object in embedding and stage 4, the mean over the supports, (B, 2, h, w)."""
        extras = features.extras
        pairs = ((extras[EMBEDDING], extras[f"support_{EMBEDDING}"]), (features.query[4], features.support[4]))
        channels = []
        for query, supports in pairs:
            cells = F.interpolate(masks[:, :, 0], size=supports.shape[-2:], mode="nearest")
            best = [best_cosine(query, support, cells[:, k, None]) for k, support in enumerate(supports.unbind(1))]
            channels.append(up(torch.stack(best).mean(dim=0), size))
        return torch.cat(channels, dim=1)


def _refuse_tuned(features: EpisodeFeatures) -> None:
    """Raise if gradients are to stop although a map would carry them to a tuned backbone."""
    if any(m.requires_grad for maps in (features.query, features.support) for m in maps.values()):
        raise FssError(
            "method.detach=true lets no gradient reach the backbone, which this fine-tuning strategy tunes: it would "
            "train nothing. Leave detach out, or use finetune=freeze."
        )
