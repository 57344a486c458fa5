"""Heads and backbones that record what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fss.backbones.resnet import ResNet
from fss.backbones.staged import StagedModule
from fss.methods.base import FewShotHead
from fss.nn.resize import up
from fss.nn.votes import relative_votes
from fss.types import AuxLogits, Episode, EpisodeFeatures, FeatureSpec, HeadOutput


class Recorder(FewShotHead):
    """Keeps every features object it was called with; its logits are a function of the query and the support."""

    name = "recorder"

    def __init__(self, spec: FeatureSpec | None = None, rounds: int = 1, **output: Any) -> None:
        super().__init__(spec or FeatureSpec(stages=(2, 3)))
        self.gain = nn.Parameter(torch.ones(()))
        self.refinement_rounds = rounds  # type: ignore[misc]
        self.calls: list[EpisodeFeatures] = []
        self.output = output

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        self.calls.append(features)
        last = max(features.query)
        query = features.query[last].mean(1, keepdim=True)
        support = features.support[last].mean((1, 2)).mean((1, 2), keepdim=True)[:, None]
        score = self.gain * (query - support)
        state = torch.full_like(score, float(len(self.calls)))
        return HeadOutput(torch.cat([-score, score], 1), state=state, **self.output)


class SupportSign(FewShotHead):
    """Calls everything foreground if the support image's stem is positive; several supports vote."""

    name = "support_sign"
    merged_scores = "shares"

    def __init__(self, shot_rule: str = "each") -> None:
        super().__init__(FeatureSpec(stages=(0,), shot_rule=shot_rule))  # type: ignore[arg-type]
        self.shots: list[int] = []

    def forward(self, features: EpisodeFeatures) -> HeadOutput:
        support = features.support[0]
        self.shots.append(support.shape[1])
        sign = support.mean((1, 2, 3, 4))[:, None, None, None] * torch.ones_like(features.query[0][:, :1])
        return HeadOutput(torch.cat([-sign, sign], 1))

    def merge_shots(self, outputs: Sequence[HeadOutput], size: tuple[int, int]) -> HeadOutput:
        return HeadOutput(relative_votes([up(o.logits, size) for o in outputs]))


class Affine(StagedModule):
    """Five stages that halve or keep the size and add one constant each: everything can be worked out by hand."""

    channels = (3, 3, 3, 3, 3)

    def __init__(self) -> None:
        super().__init__(self.channels)
        self.norm_mode = "eval"

    def stage(self, index: int) -> nn.Module:
        return nn.AvgPool2d(2) if index in (0, 2) else nn.Identity()


def tiny(width: int = 4, seed: int = 0) -> ResNet:
    torch.manual_seed(seed)
    backbone = ResNet(18, width=width)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    backbone.norm_mode = "eval"
    return backbone.eval()


def inputs(b: int = 2, k: int = 1, size: int = 33, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    query = torch.randn(b, 3, size, size, generator=g)
    supports = torch.randn(b, k, 3, size, size, generator=g)
    labels = torch.zeros(b, k, size, size, dtype=torch.uint8)
    labels[..., 4:20, 6:26] = 1
    labels[..., 0] = 255
    return query, supports, labels


def episode(b: int = 2, k: int = 1, size: int = 33, seed: int = 0, **more: Any) -> Episode:
    query, supports, labels = inputs(b, k, size, seed)
    label = torch.zeros(b, size, size, dtype=torch.uint8)
    label[:, 5:25, 5:15] = 1
    label[:, :, -1] = 255
    return Episode(
        query=query,
        query_label=label,
        support_images=supports,
        support_labels=labels,
        class_id=torch.arange(b) + 1,
        class_index=torch.arange(b),
        index=torch.arange(b),
        query_ids=[f"q{i}" for i in range(b)],
        support_ids=[[f"s{i}{j}" for j in range(k)] for i in range(b)],
        **more,
    )


def aux(name: str, logits: Tensor, target: Any, weight: float) -> AuxLogits:
    return AuxLogits(name, logits, target, weight)
