"""CyCTR: query features gather information from single support positions whose match is cycle-consistent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fss.errors import FssError
from fss.methods.releases import STAGES, KeyMap, Release, Released, Shapes, deep_stem
from fss.methods.separable import EncodedEpisode, Encoding, SeparableHead
from fss.nn.conv_stacks import classifier, reduction, refinement
from fss.nn.cycle_attention import CycleAttention, Keys, draw_keys
from fss.nn.deformable_attention import DeformableAttention
from fss.nn.dropout import SharedDropout
from fss.nn.guidance import inside_mask
from fss.nn.prior import prior_mask
from fss.nn.prototype import masked_average, support_mask
from fss.nn.resize import up
from fss.nn.sine_position import sine_grid
from fss.types import IGNORE, AuxLogits, EpisodeFeatures, FeatureSpec, HeadOutput, ParamGroup

BLOCKS, POINTS = 2, 9
"""Blocks of the transformer, and points that each head of its self-attention samples."""
KEYS_PER_SHOT = 300
"""Keys of the object, and of the background."""
FEWEST, MOST, MOST_OF_SEVERAL = 0.6, 4.0, 1.4
"""Bounds of the factor of their number in training; the upper one differs with several shots."""
DICE_EPS = 1e-8

_PARTS = {
    "adjust_feature_qry": "adjust_query",
    "adjust_feature_supp": "adjust_support",
    "qry_merge_feat": "merge_query",
    "supp_merge_feat": "merge_support",
    "merge_multi_lvl_reduce": "reduce",
    "merge_multi_lvl_sum": "refine",
    "cls": "cls",
    "pred_supp_qry_proj": "support_query",
    "supp_init_merge": "support_merge",
    "supp_beta_conv": "support_refine",
    "supp_cls": "support_cls",
}
_SELF = {
    "sampling_offsets": "offsets",
    "attention_weights": "weights",
    "value_proj": "value",
    "output_proj": "output",
}
_CROSS = {"q_fc": "query", "k_fc": "key", "v_fc": "value", "proj": "output"}


def _keys() -> KeyMap:
    body = "backbone.body."
    stem = [
        (f"{body}{layer}{n}.", f"backbone.layer0.{3 * n - 3 + i}.")
        for n in (1, 2, 3)
        for i, layer in enumerate(("conv", "bn"))
    ]
    stages = [(f"{body}layer{i}.", f"backbone.layer{i}.") for i in STAGES[1:]]
    parts = [(f"{theirs}.", f"head.{ours}.") for theirs, ours in _PARTS.items()]
    inner = [
        ("transformer.level_embed", "head.transformer.level"),
        ("transformer.layer_norms.", "head.transformer.norms."),
    ]
    for i in range(BLOCKS):
        own = (f"transformer.qry_self_layers.{i}.", f"head.transformer.self_attention.{i}.")
        cross = (f"transformer.cross_layers.{i}.", f"head.transformer.cross_attention.{i}.")
        for (theirs, ours), names in ((own, _SELF), (cross, _CROSS)):
            inner += [(f"{theirs}{name}.", f"{ours}{our_name}.") for name, our_name in names.items()]
    for i in range(2 * BLOCKS):
        ffn = f"transformer.ffns.{i}.layers.", f"head.transformer.ffns.{i}."
        inner += [(f"{ffn[0]}0.0.", f"{ffn[1]}0."), (f"{ffn[0]}1.", f"{ffn[1]}3.")]
    return KeyMap((*stem, *stages, *parts, *inner), unused=(_UNUSED,), counted=False)


def _unread(released: Released) -> Shapes:
    return {f"{_UNUSED}{i}.weight": (256, 256, 1, 1) for i in (0, 2)}


_UNUSED = "addtional_proj."
"""A projection that the release stores, in this spelling, and never calls."""

KeyDraw = Literal["episode", "global"]
KeyFlags = Literal["own", "release"]


_AS_RELEASED = ("method.key_draw=global", "method.key_flags=release")


class CyCTR(SeparableHead):
    """Cycle-consistent transformer (Zhang et al., NeurIPS 2021, arXiv 2106.02320).

    Query features, with mean prototype and mean prior mask of the supports, go through two blocks of deformable
    self-attention and of cross attention to single support positions. A support position whose best match in the query
    leads back to the other class is left out of the cross attention.

    If there are more support positions than keys, keys are drawn, of object and background alike. The draw of an
    episode depends on its own generator alone; the release takes torch's global one (``key_draw``). The release also
    reads the class of a drawn key at another position, and its weights were trained so (``key_flags``).

    Several supports are one longer list of positions. Their order, and how often all of them are repeated, matter to
    the draw alone: while every position is a key with its own class, the answer is the same up to rounding. With
    ``key_flags=release`` both change it.

    Departures: what has no effect in the release is left out, an unused projection and a convolution whose result is
    discarded. Ignored pixels are penalised by the loss, as in the release.
    """

    name: ClassVar[str] = "cyctr"
    releases: ClassVar[tuple[Release, ...]] = (
        Release(
            "cyctr",
            lambda backbone: _keys(),
            ("resnet50", "resnet101"),
            lambda released: [*deep_stem(released.backbone, "torchvision"), *_AS_RELEASED],
            lambda released: ("method.key_draw", "method.key_flags"),
            unread=_unread,
            telling=("transformer.level_embed",),
        ),
    )

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        dropout: float = 0.5,
        attention_dropout: float = 0.1,
        aux_weight: float = 1.0,
        key_draw: KeyDraw = "episode",
        key_flags: KeyFlags = "own",
        query_chunk: int = 0,
    ) -> None:
        """Build the head.

        Args:
            channels: output channels of the backbone's stages 0 to 4.
            width: channels within the head; 256 in the paper.
            dropout: share of reduced channels dropped in training; 0.5 in the release.
            attention_dropout: share dropped in the transformer in training; 0.1 in the release.
            aux_weight: weight of the loss of the supports as segmented by the query.
            key_draw: ``episode``: each episode's own generator draws its keys; ``global``: torch's, as in the release.
            key_flags: ``own``: a drawn key has its own class; ``release``: that of another position.
            query_chunk: query positions whose cross attention is in memory at a time, and is computed again in the
                backward pass; 0: all. Without dropout the result is the same up to rounding.

        Raises:
            FssError: if an argument is not one of the allowed values.
        """
        super().__init__(
            FeatureSpec((2, 3, 4), extras=frozenset({"query_padding"}), needs_query_label=True, draws=True)
        )
        if key_draw not in ("episode", "global"):
            raise FssError(f"method.key_draw={key_draw!r}: choose episode, or global as in the release")
        if key_flags not in ("own", "release"):
            raise FssError(f"method.key_flags={key_flags!r}: choose own, or release for its own weights")
        if width % 8:
            raise FssError(
                f"method.width={width}: the transformer has 8 or 12 heads; give a multiple of 8, such as 256"
            )
        self.aux_weight, self.key_draw, self.key_flags = aux_weight, key_draw, key_flags
        middle = channels[2] + channels[3]
        self.adjust_query = reduction(middle, width, dropout)
        self.adjust_support = reduction(middle, width, dropout)
        self.merge_query = reduction(2 * width + 1, width)
        self.merge_support = reduction(2 * width, width)
        self.transformer = Transformer(width, attention_dropout, query_chunk)
        self.reduce = reduction(width, width)
        self.refine = refinement(width)
        self.cls = classifier(width)
        self.support_query = reduction(width, width)
        self.support_merge = reduction(2 * width, width)
        self.support_refine = refinement(width)
        self.support_cls = classifier(width)

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            features: stages 2, 3 and 4; in training the query label; in the extras, where known, ``query_padding``,
                (B, H, W), above zero in the padding of the query.

        Returns:
            logits (B, 2, h, w) at the resolution of stage 3, and in training those of the supports.
        """
        query = self.adjust_query(_middle(features.query))
        size = (query.shape[-2], query.shape[-1])
        labels = features.support_labels
        reduced, shots = [], []
        for k in range(labels.shape[1]):
            maps = {stage: support[:, k] for stage, support in features.support.items()}
            mask = support_mask(labels[:, k], query.dtype)
            reduced.append(self.adjust_support(_middle(maps)))
            prototype = masked_average(reduced[k], up(mask, size))
            prior = up(prior_mask(features.query[4], maps[4], mask), size)
            shots.append(_Shot(prototype, prior, self._merged(reduced[k], prototype), _cells(labels[:, k], size)))
        x = self._decoded(query, shots, features.extras, features.generators)
        aux = []
        if self.training and features.query_label is not None:
            mask = support_mask(features.query_label, query.dtype)
            own = masked_average(self.support_query(x) + query, up(mask, size))
            logits = torch.stack([self._support_logits(support, own) for support in reduced], dim=1)
            aux.append(AuxLogits("support", logits.flatten(0, 1), "support", self.aux_weight))
        return HeadOutput(self.cls(x), aux)

    def encode_query(self, maps: Mapping[int, Tensor]) -> Encoding:
        """Return reduced and high-level features: ``reduced`` (C, h, w) and ``high`` (C4, h, w)."""
        return {"reduced": self.adjust_query(_middle(maps))[0], "high": maps[4][0]}

    def encode_support(self, maps: Mapping[int, Tensor], labels: Tensor) -> Encoding:
        """Return ``prototype`` (C, 1, 1), ``tokens`` (C, h, w), ``cells`` (h, w) and the parts of the prior mask."""
        reduced = self.adjust_support(_middle(maps))
        size = (reduced.shape[-2], reduced.shape[-1])
        mask = support_mask(labels, reduced.dtype)
        prototype = masked_average(reduced, up(mask, size))
        return {
            "prototype": prototype[0],
            "tokens": self._merged(reduced, prototype)[0],
            "cells": _cells(labels, size)[0],
            **inside_mask(maps[4], mask),
        }

    def forward_encoded(self, episode: EncodedEpisode) -> HeadOutput:
        """Score one batch of episodes from their encodings."""
        query = torch.stack([q["reduced"] for q in episode.query])
        size = (query.shape[-2], query.shape[-1])
        shots = []
        for supports in zip(*episode.supports, strict=True):
            priors = [
                up(prior_mask(q["high"][None], s["object"][None], s["weights"][None]), size)
                for q, s in zip(episode.query, supports, strict=True)
            ]
            parts = (torch.stack([s[name] for s in supports]) for name in ("prototype", "tokens", "cells"))
            prototype, tokens, cells = parts
            shots.append(_Shot(prototype, torch.cat(priors), tokens, cells))
        return HeadOutput(self.cls(self._decoded(query, shots, episode.extras, episode.generators)))

    def criterion(self, logits: Tensor, label: Tensor, pixels: Tensor | None = None, output: str = "main") -> Tensor:
        """Compute the Dice loss of both channels, each a binary problem of its own.

        Args:
            logits: (N, 2, H, W).
            label: (N, H, W); ignored pixels belong to neither channel, so that a score there is an error.
            pixels: unused, as every episode counts alike.
            output: unused, as all have the same loss.

        Returns:
            A scalar.
        """
        target = torch.stack([label == 0, label == 1], dim=1).to(logits.dtype).flatten(2)
        score = logits.flatten(2).sigmoid()
        squares = (score.square().sum(dim=2) + target.sum(dim=2)).clamp(min=DICE_EPS)
        return (1 - 2 * (score * target).sum(dim=2) / squares).sum(dim=1).mean()

    def param_groups(self) -> list[ParamGroup]:
        """Return the transformer, whose biases do not decay, and the rest; a recipe may optimise it by itself."""
        parts: dict[str, list[nn.Parameter]] = {"head": [], "transformer": [], "transformer_bias": []}
        for name, p in self.named_parameters():
            kind = "head"
            if name.startswith("transformer."):
                kind = "transformer_bias" if name.endswith(".bias") else "transformer"
            if p.requires_grad:
                parts[kind].append(p)
        return [
            ParamGroup("head", parts["head"]),
            ParamGroup("transformer", parts["transformer"], optimizer="transformer"),
            ParamGroup("transformer_bias", parts["transformer_bias"], weight_decay=0.0, optimizer="transformer"),
        ]

    def _merged(self, reduced: Tensor, prototype: Tensor) -> Tensor:
        merged: Tensor = self.merge_support(torch.cat([reduced, prototype.expand_as(reduced)], dim=1))
        return merged

    def _decoded(
        self, query: Tensor, shots: Sequence[_Shot], extras: Mapping[str, Tensor], generators: Sequence[Generator]
    ) -> Tensor:
        """Return what the classifier scores, (B, C, h, w), from reduced query features (B, C, h, w)."""
        prototype = torch.stack([shot.prototype for shot in shots]).mean(dim=0)
        prior = torch.stack([shot.prior for shot in shots]).mean(dim=0)
        merged = self.merge_query(torch.cat([query, prototype.expand_as(query), prior], dim=1))
        padding = extras.get("query_padding")
        padded = torch.zeros_like(query[:, 0], dtype=torch.bool)
        if padding is not None:
            padded = _nearest(padding, (query.shape[-2], query.shape[-1])) > 0
        tokens = torch.cat([shot.tokens.flatten(2).mT for shot in shots], dim=1)
        cells = torch.stack([shot.cells for shot in shots], dim=1)
        x = self.reduce(self.transformer(merged, padded, tokens, self._keys(cells, generators)))
        refined: Tensor = self.refine(x) + x
        return refined

    def _keys(self, cells: Tensor, generators: Sequence[Generator]) -> list[Keys]:
        """Draw the keys of every block from labels (B, K, h, w): anew in training, once for all in evaluation mode."""
        shots = cells.shape[1]
        inside, padded = _both_classes(cells == 1).flatten(1), (cells == IGNORE).flatten(1)
        sources: Sequence[Generator | None] = [None] * len(cells) if self.key_draw == "global" else generators
        misread, count = self.key_flags == "release", KEYS_PER_SHOT * shots
        if not self.training:
            return [draw_keys(inside, padded, count, sources, misread)] * BLOCKS
        span = (MOST if shots == 1 else MOST_OF_SEVERAL) - FEWEST
        # One number for the batch; seeds are the same on all processes.
        counts = [int(count * (FEWEST + span * float(torch.rand(())))) for _ in range(BLOCKS)]
        return [draw_keys(inside, padded, n, sources, misread) for n in counts]

    def _support_logits(self, reduced: Tensor, prototype: Tensor) -> Tensor:
        x = self.support_merge(torch.cat([reduced, prototype.expand_as(reduced)], dim=1))
        logits: Tensor = self.support_cls(self.support_refine(x) + x)
        return logits


@dataclass(frozen=True)
class _Shot:
    """One support of every episode.

    Attributes:
        prototype: (B, C, 1, 1).
        prior: prior mask of the query, (B, 1, h, w).
        tokens: support features merged with their prototype, (B, C, h, w).
        cells: label at their resolution, (B, h, w).
    """

    prototype: Tensor
    prior: Tensor
    tokens: Tensor
    cells: Tensor


class Transformer(nn.Module):
    """Blocks of deformable self-attention on the query and of cycle-consistent attention to support positions."""

    def __init__(self, channels: int, dropout: float, query_chunk: int) -> None:
        """Build the layers.

        Args:
            channels: channels of the tokens; a multiple of 12 gives 12 heads, else 8.
            dropout: share dropped in training.
            query_chunk: query positions whose cross attention is in memory at a time; 0: all.
        """
        super().__init__()
        heads = 12 if channels % 12 == 0 else 8
        self.level = nn.Parameter(torch.randn(1, channels))
        self.self_attention = nn.ModuleList(
            DeformableAttention(channels, heads, POINTS, dropout) for _ in range(BLOCKS)
        )
        self.cross_attention = nn.ModuleList(
            CycleAttention(channels, heads, dropout, query_chunk) for _ in range(BLOCKS)
        )
        self.ffns = nn.ModuleList(_ffn(channels, dropout) for _ in range(2 * BLOCKS))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(4 * BLOCKS))
        self.dropout = SharedDropout(dropout)

    def forward(self, query: Tensor, padded: Tensor, supports: Tensor, keys: Sequence[Keys]) -> Tensor:
        """Transform the query.

        Args:
            query: (B, C, h, w).
            padded: cells in the padding of the query, (B, h, w).
            supports: support tokens, (B, M, C).
            keys: those of them that each block attends to.

        Returns:
            (B, C, h, w).
        """
        x = query.flatten(2).mT
        code = sine_grid(padded, query.shape[1]).to(x.dtype).flatten(2).mT + self.level
        for block, key in enumerate(keys):
            tokens = supports.gather(1, key.position[..., None].expand(-1, -1, supports.shape[2]))
            norms, ffns = self.norms[4 * block : 4 * block + 4], self.ffns[2 * block : 2 * block + 2]
            x = norms[0](x + self.dropout(self.self_attention[block](x + code, x, padded)))
            x = norms[1](x + ffns[0](x))
            x = norms[2](x + self.cross_attention[block](x, tokens, key.inside, key.padded))
            x = norms[3](x + ffns[1](x))
        return x.mT.reshape(query.shape)


def _ffn(channels: int, dropout: float) -> nn.Sequential:
    wide, narrow = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(3 * channels, channels, bias=False)
    nn.init.xavier_uniform_(wide.weight)
    nn.init.xavier_uniform_(narrow.weight)
    return nn.Sequential(wide, nn.ReLU(inplace=True), SharedDropout(dropout), narrow, SharedDropout(dropout))


def _middle(maps: Mapping[int, Tensor]) -> Tensor:
    """Concatenate stages 2 and 3, in this order, at the resolution of stage 3."""
    return torch.cat([up(maps[2], (maps[3].shape[-2], maps[3].shape[-1])), maps[3]], dim=1)


def _nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize labels (B, H, W) to the nearest pixel up and left, (B, h, w)."""
    return F.interpolate(labels[:, None].float(), size=size, mode="nearest")[:, 0]


def _cells(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the label of each token, (B, h, w), from labels (B, H, W)."""
    return _nearest(labels, size).to(torch.uint8)


def _both_classes(inside: Tensor) -> Tensor:
    """Set the central cells of a mask without object, and clear the corners of one without background, (B, K, h, w)."""
    height, width = inside.shape[-2:]
    centre, corners = torch.zeros_like(inside[0, 0]), torch.zeros_like(inside[0, 0])
    centre[max(height // 2 - 1, 0) : height // 2 + 1, max(width // 2 - 1, 0) : width // 2 + 1] = True
    corners[:: max(height - 1, 1), :: max(width - 1, 1)] = True
    empty, full = (~inside).flatten(2).all(dim=2), inside.flatten(2).all(dim=2)
    return (inside | (empty[..., None, None] & centre)) & ~(full[..., None, None] & corners)
