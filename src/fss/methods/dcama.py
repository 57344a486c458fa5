"""DCAMA: every query position attends to all support positions and takes over their mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fss.errors import FssError
from fss.methods.base import FewShotHead
from fss.methods.releases import KeyMap, Release, Released, Shapes, torchvision_resnet
from fss.methods.swin_release import stored_tables, swin, swin_order
from fss.nn.dropout import SharedDropout
from fss.nn.prototype import support_mask
from fss.nn.resize import up
from fss.nn.sine_position import sine_codes
from fss.types import EpisodeFeatures, FeatureSpec, HeadOutput

SKIP, COARSE, MIXED = 1, (2, 3, 4), (3, 2)
"""Stage of which only the last tap is used, as a skip; stages of which every tap gives a coarse mask; and those at
whose resolution coarser ones are mixed in, in this order."""
HEADS, GROUPS = 8, 4
"""Heads of the attention, and groups of the normalisation."""
TABLE = 10_000
"""Positions whose codes the release stores."""


_BACKBONE, _SWIN = "feature_extractor.", "swin_base"
_DEPTHS = (2, 2, 18, 2)
"""Blocks per layer of Swin-B."""
_TABLES = partial(stored_tables, _BACKBONE, _DEPTHS, side=96, window=12)
"""Computes what the release stores of Swin-B, which it builds for images of 384 pixels."""
_IN_HEAD = ("DCAMA_blocks.", "pe.", *(f"conv{i}." for i in range(1, 6)))
"""Parts of the release's head in the order of its files, by which it reads them."""


def _unread(released: Released) -> Shapes:
    """Return the classifier of ImageNet, and Swin's last norm, which the release stores and never calls."""
    if released.backbone != _SWIN:
        return {f"{_BACKBONE}fc.weight": (1000, 2048), f"{_BACKBONE}fc.bias": (1000,)}
    shapes: dict[str, tuple[int, ...]] = {"norm.weight": (1024,), "norm.bias": (1024,)}
    shapes |= {"head.weight": (1000, 1024), "head.bias": (1000,)}
    return {f"{_BACKBONE}{name}": shape for name, shape in shapes.items()}


def _keys(backbone: str) -> KeyMap:
    inner: list[tuple[str, str]] = []
    for index, stage in enumerate(COARSE):
        linear = f"model.DCAMA_blocks.{index}.linears."
        inner += [(f"{linear}{n}.", f"head.attention.{stage}.{name}.") for n, name in enumerate(("query", "key"))]
        inner.append((f"model.pe.{index}.pe", f"head.positions.{stage}.table"))
    inner += [(f"model.conv{5 - stage}.", f"head.coarse.{stage}.") for stage in COARSE]
    inner += [(f"model.conv{7 - stage}.", f"head.mix.{stage}.") for stage in MIXED]
    inner += [(f"model.mixer{i + 1}.", f"head.decode.{i}.") for i in range(3)]
    head = tuple(f"model.{name}" for name in _IN_HEAD)
    if backbone == _SWIN:
        unused = (f"{_BACKBONE}norm.", f"{_BACKBONE}head.")
        order = (*swin_order(_BACKBONE, _DEPTHS), *head)
        return KeyMap((*swin(_BACKBONE), *inner), unused, computed=_TABLES, order=order)
    return KeyMap((*torchvision_resnet(_BACKBONE), *inner), unused=(f"{_BACKBONE}fc.",), order=(_BACKBONE, *head))


def _options(released: Released) -> list[str]:
    stem = [] if released.backbone == _SWIN else ["backbone.stem=torchvision"]
    return [*stem, "method.wants.dilation=none", f"method.position_table={TABLE}"]


class DCAMA(FewShotHead):
    """Dense cross-query-and-support attention weighted mask aggregation (Shi et al., ECCV 2022, arXiv 2207.08549).

    Tokens are the positions of a tap. For every tap of stages 2 to 4 the query attends to all support positions, of
    object and background, and the attention output is the support mask, one coarse mask per tap. Convolutions mix the
    coarse masks from coarse to fine and refine them with features of query and supports.

    Several supports are one longer sequence of tokens, and their skip features are reduced by the maximum, so the
    answer depends neither on the order of the supports nor on how often all of them are repeated (up to rounding). With
    more than one episode, the release mixes supports of different episodes; here it does not.

    Departures: the release computes features under no-grad, so that nothing reaches the backbone; here gradients do
    unless ``detach`` is given. The codes of the positions are computed in double precision where they are needed,
    unless ``position_table`` stores them as the release does. Blocks with fewer channels than the last one of their
    stage, which ResNets do not have, are filled up with zeros. Images need not be square, and sides need not be
    multiples of 8.
    """

    name: ClassVar[str] = "dcama"
    releases: ClassVar[tuple[Release, ...]] = (
        Release(
            "dcama",
            _keys,
            ("resnet50", "resnet101", _SWIN),
            _options,
            unread=_unread,
            telling=("model.DCAMA_blocks.",),
            wrapped=False,
            prefix="module.",
        ),
    )

    def __init__(
        self,
        channels: Sequence[int],
        taps: Sequence[int],
        width: int = 128,
        dropout: float = 0.5,
        detach: bool = False,
        query_chunk: int = 0,
        position_table: int = 0,
    ) -> None:
        """Build the head.

        Args:
            channels: output channels of the backbone's stages 0 to 4.
            taps: number of taps of its stages 0 to 4.
            width: channels of the mixed masks; 128 in the paper.
            dropout: share of token values, and of attention weights, dropped in training; 0.5 in the release.
            detach: stop gradients before the head, as in the release, whose backbone never trains.
            query_chunk: query positions whose attention is in memory at a time, and is computed again in the backward
                pass; 0: all. In evaluation mode the result is the same up to rounding.
            position_table: number of position codes that are stored with the weights; 10000 in the release, whose
                table is inexact; 0: they are computed.

        Raises:
            FssError: if the width, or the channels of a stage, cannot be divided.
        """
        super().__init__(FeatureSpec(stages=(), taps=(SKIP, *COARSE)))
        if width % 8:
            raise FssError(
                f"method.width={width}: the first masks have an eighth of it; give a multiple of 8, such as 128"
            )
        self.detach = detach
        self._widths = {i: channels[i] for i in COARSE}
        for stage in COARSE:
            if channels[stage] % HEADS:
                raise FssError(
                    f"method=dcama divides the channels of stages 2 to 4 among {HEADS} heads, but stage {stage} of "
                    f"this backbone has {channels[stage]}. Choose a backbone whose channels are multiples of {HEADS}."
                )
        self.attention = nn.ModuleDict(
            {str(i): MaskAggregation(channels[i], HEADS, dropout, query_chunk) for i in COARSE}
        )
        self.positions = nn.ModuleDict({str(i): _Positions(channels[i], position_table) for i in COARSE})
        self.dropout = SharedDropout(dropout)
        thin, half = max(width // 8, GROUPS), max(width // 2, GROUPS)
        kernels = {4: (3, 3, 3), 3: (5, 3, 3), 2: (5, 5, 3)}
        self.coarse = nn.ModuleDict({str(i): _stack((taps[i], thin, half, width), kernels[i]) for i in COARSE})
        self.mix = nn.ModuleDict({str(i): _stack((width,) * 4, (3, 3, 3)) for i in MIXED})
        joined = width + 2 * channels[2] + 2 * channels[SKIP]
        self.decode = nn.ModuleList(
            [
                _pair(joined, width, half),
                _pair(half, half, thin),
                _pair(thin, thin, 2, last=True),
            ]
        )

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        """Score one batch of episodes.

        Args:
            features: taps of stages 1 to 4 of queries and supports, which are not masked.

        Returns:
            logits (B, 2, h, w) at four times the resolution of stage 1, which is the image's.

        Raises:
            FssError: if gradients are stopped although the backbone is tuned.
        """
        if self.detach:
            _refuse_tuned(features)
        mixed = self.coarse["4"](self._coarse_masks(features, 4))
        for stage in MIXED:
            fine = self.coarse[str(stage)](self._coarse_masks(features, stage))
            mixed = self.mix[str(stage)](up(mixed, (fine.shape[-2], fine.shape[-1])) + fine)
        skip = _skip(features, SKIP)
        size = (skip.shape[-2], skip.shape[-1])
        joined = torch.cat([up(torch.cat([mixed, _skip(features, 2)], dim=1), size), skip], dim=1)
        x = self.decode[0](joined)
        for decode in list(self.decode)[1:]:
            x = decode(up(x, (2 * x.shape[-2], 2 * x.shape[-1])))
        return HeadOutput(x)

    def _coarse_masks(self, features: EpisodeFeatures, stage: int) -> Tensor:
        """Return one mask per tap of a stage, (B, n, h, w)."""
        labels = features.support_labels
        masks: list[Tensor] = []
        for query, support in zip(features.query_taps[stage], features.support_taps[stage], strict=True):
            batch, size = len(support), (support.shape[-2], support.shape[-1])
            mask = up(support_mask(labels.flatten(0, 1), support.dtype), size).reshape(batch, -1)
            q, s = self._tokens(query[:, None], stage), self._tokens(support, stage)
            masks.append(self.attention[str(stage)](q, s, mask).reshape(batch, *query.shape[-2:]))
        return torch.stack(masks, dim=1)

    def _tokens(self, maps: Tensor, stage: int) -> Tensor:
        """Return the positions of maps (B, K, C, h, w) with their code, (B, K h w, C); each shot has the same codes."""
        tokens = maps.flatten(3).transpose(2, 3)
        missing = self._widths[stage] - tokens.shape[3]
        if missing < 0:
            raise FssError(
                f"A block of stage {stage} has {tokens.shape[3]} channels, more than the {self._widths[stage]} at the "
                "end of the stage, for which method=dcama was built. Choose another backbone."
            )
        if missing:
            tokens = F.pad(tokens, (0, missing))
        tokens = tokens + self.positions[str(stage)](tokens)
        dropped: Tensor = self.dropout(tokens.flatten(1, 2))
        return dropped


class MaskAggregation(nn.Module):
    """Multi-head attention of query tokens to support tokens whose values are the support mask, one number per token.

    There is neither a projection of the values nor one of the output: the heads are averaged. The bias of the keys
    has no effect, since a softmax ignores what is constant along a row; the release has it.

    Attributes:
        query_chunk: query positions whose attention is held in memory at a time; 0: all.
    """

    def __init__(self, channels: int, heads: int, dropout: float, query_chunk: int = 0) -> None:
        """Build the projections.

        Args:
            channels: channels of the tokens, a multiple of ``heads``.
            heads: number of heads.
            dropout: share of attention weights dropped in training.
            query_chunk: see the attribute.
        """
        super().__init__()
        self.heads = heads
        self.query_chunk = query_chunk
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.dropout = SharedDropout(dropout)

    def forward(self, query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
        """Aggregate the masks.

        Args:
            query: tokens of the query, (B, N, C).
            support: tokens of all supports, (B, M, C).
            mask: mask of each of them, (B, M).

        Returns:
            Mean over the heads of the attention-weighted mask, (B, N).
        """
        q, k = self._split(self.query(query)), self._split(self.key(support))
        if not 0 < self.query_chunk < q.shape[2]:
            return self._attend(q, k, mask)
        parts = torch.split(q, self.query_chunk, dim=2)
        if not torch.is_grad_enabled():
            return torch.cat([self._attend(part, k, mask) for part in parts], dim=1)
        # The backward pass computes each chunk's attention again, with the same seed of its dropout.
        return torch.cat([checkpoint(self._attend, part, k, mask, use_reentrant=False) for part in parts], dim=1)

    def _split(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, C) by head, (B, heads, N, C / heads)."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / query.shape[-1] ** 0.5
        weights: Tensor = self.dropout(scores.softmax(dim=-1))
        return (weights @ mask[:, None, :, None]).mean(dim=1)[..., 0]


def _refuse_tuned(features: EpisodeFeatures) -> None:
    every = chain(*features.query_taps.values(), *features.support_taps.values())
    if any(tap.requires_grad for tap in every):
        raise FssError(
            "method.detach=true lets no gradient reach the backbone, which this fine-tuning strategy tunes: it would "
            "train nothing. Leave detach out, or use finetune=freeze."
        )


class _Positions(nn.Module):
    """Codes of positions, stored as in the release or computed."""

    def __init__(self, channels: int, stored: int) -> None:
        super().__init__()
        self.table: Tensor | None
        self.register_buffer("table", sine_codes(stored, channels).float()[None] if stored else None)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the codes of tokens (..., N, C), (N, C)."""
        count, channels = tokens.shape[-2:]
        if self.table is None:
            return sine_codes(count, channels, tokens.device).to(tokens.dtype)
        if count > self.table.shape[1]:
            raise FssError(
                f"A map has {count} positions, but method.position_table={self.table.shape[1]} codes are stored. Give "
                "smaller images, or train with method.position_table=0."
            )
        return self.table[0, :count].to(tokens.dtype)


def _stack(widths: Sequence[int], kernels: Sequence[int]) -> nn.Sequential:
    """Return convolutions with group norm and ReLU; the convolutions are modules 0, 3 and 6."""
    layers: list[nn.Module] = []
    for c_in, c_out, kernel in zip(widths[:-1], widths[1:], kernels, strict=True):
        conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
        layers += [conv, nn.GroupNorm(math.gcd(GROUPS, c_out), c_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _pair(c_in: int, middle: int, c_out: int, last: bool = False) -> nn.Sequential:
    """Return two 3x3 convolutions, each with ReLU but for the last one of all."""
    layers: list[nn.Module] = [nn.Conv2d(c_in, middle, 3, padding=1), nn.ReLU(inplace=True)]
    layers.append(nn.Conv2d(middle, c_out, 3, padding=1))
    return nn.Sequential(*layers, *([] if last else [nn.ReLU(inplace=True)]))


def _skip(features: EpisodeFeatures, stage: int) -> Tensor:
    """Return the last tap of a stage of query and supports, (B, 2C, h, w); the supports' is the maximum over shots."""
    return torch.cat([features.query_taps[stage][-1], features.support_taps[stage][-1].amax(dim=1)], dim=1)
