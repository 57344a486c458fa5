"""DCAMA written from its formulas, head by head and position by position, for comparison."""

from __future__ import annotations

import math

import torch
from tests.methods.plain_cyctr import conv, resized
from torch import Tensor

from fss.methods.dcama import DCAMA
from fss.types import EpisodeFeatures


def code(positions: int, channels: int) -> Tensor:
    out = torch.zeros(positions, channels, dtype=torch.float64)
    for n in range(positions):
        for i in range(channels // 2):
            angle = n * math.exp(-2 * i * math.log(10000) / channels)
            out[n, 2 * i], out[n, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return out


def logits(head: DCAMA, features: EpisodeFeatures, item: int) -> Tensor:
    """The logits of one episode of square maps, (2, S, S)."""
    state = head.state_dict()

    def coarse_mask(stage: int, tap: int) -> Tensor:
        query, supports = features.query_taps[stage][tap][item], features.support_taps[stage][tap][item]
        channels, side, _ = query.shape
        codes = code(side * side, channels)
        tokens = query.reshape(channels, -1).T + codes
        keys = torch.cat([s.reshape(channels, -1).T + codes for s in supports])
        mask = torch.cat([resized((m == 1).double(), side).flatten() for m in features.support_labels[item]])
        q, k = (
            x @ state[f"attention.{stage}.{n}.weight"].T + state[f"attention.{stage}.{n}.bias"]
            for x, n in ((tokens, "query"), (keys, "key"))
        )
        out, width = torch.zeros(side * side, dtype=torch.float64), channels // 8
        for n in range(side * side):
            for h in range(8):
                part = slice(h * width, (h + 1) * width)
                scores = (k[:, part] @ q[n, part] / math.sqrt(width)).exp()
                out[n] += (scores * mask).sum() / scores.sum() / 8
        return out.reshape(side, side)

    def block(x: Tensor, name: str) -> Tensor:
        for i in (0, 3, 6):
            x = conv(x, state[f"{name}.{i}.weight"], state[f"{name}.{i}.bias"])
            groups = []
            for group in x.chunk(4):
                groups.append((group - group.mean()) / (group.var(correction=0) + 1e-5).sqrt())
            scale, shift = (state[f"{name}.{i + 1}.{p}"][:, None, None] for p in ("weight", "bias"))
            x = (torch.cat(groups) * scale + shift).clamp(min=0)
        return x

    def stage(index: int) -> Tensor:
        taps = range(len(features.query_taps[index]))
        return block(torch.stack([coarse_mask(index, t) for t in taps]), f"coarse.{index}")

    def skips(index: int) -> list[Tensor]:
        return [features.query_taps[index][-1][item], features.support_taps[index][-1][item].amax(dim=0)]

    x = stage(4)
    for index in (3, 2):
        fine = stage(index)
        x = block(resized(x, fine.shape[-1]) + fine, f"mix.{index}")
    x = torch.cat([x, *skips(2)])
    x = torch.cat([resized(x, 2 * x.shape[-1]), *skips(1)])
    for i in range(3):
        x = conv(x, state[f"decode.{i}.0.weight"], state[f"decode.{i}.0.bias"]).clamp(min=0)
        x = conv(x, state[f"decode.{i}.2.weight"], state[f"decode.{i}.2.bias"])
        x = resized(x.clamp(min=0), 2 * x.shape[-1]) if i < 2 else x
    return x
