"""HSNet written from its formulas, position by position, for comparison."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fss.methods.hsnet import HSNet


def axis(target: int, side: int) -> Tensor:
    """Bilinear weights of every target position, aligned corners, (target, side)."""
    out = torch.zeros(target, side, dtype=torch.float64)
    for i in range(target):
        at = i * (side - 1) / (target - 1) if target > 1 else 0.0
        low = math.floor(at)
        out[i, low] += 1 - (at - low)
        if at > low:
            out[i, low + 1] += at - low
    return out


def resized(maps: Tensor, height: int, width: int) -> Tensor:
    """Resize the last two dimensions."""
    return axis(height, maps.shape[-2]) @ maps @ axis(width, maps.shape[-1]).T


def unit(maps: Tensor) -> Tensor:
    """(C, h, w), every position divided by its length plus 1e-5."""
    out = maps.clone()
    for i in range(maps.shape[1]):
        for j in range(maps.shape[2]):
            out[:, i, j] /= math.sqrt(float((maps[:, i, j] ** 2).sum())) + 1e-5
    return out


def at(x: Tensor, i: int, j: int) -> Tensor:
    """A position of the last two dimensions, zero outside."""
    inside = 0 <= i < x.shape[-2] and 0 <= j < x.shape[-1]
    return x[..., i, j] if inside else torch.zeros(x.shape[:-2], dtype=x.dtype)


def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 2D convolution of (C, h, w) by definition."""
    k, (h, w) = weight.shape[-1], x.shape[1:]
    out = torch.empty(weight.shape[0], h, w, dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            out[:, i, j] = bias + sum(
                weight[:, :, a, b] @ at(x, i + a - k // 2, j + b - k // 2) for a in range(k) for b in range(k)
            )
    return out


def pivoted(x: Tensor, layer: object) -> Tensor:
    """A center-pivot convolution of (C, h, w, u, v) by definition."""
    query, support, t = layer.query, layer.support, layer.stride  # type: ignore[attr-defined]
    _, h, w, u, v = x.shape
    rows, columns, k = range(0, u, t), range(0, v, t), query.weight.shape[-1]
    out = torch.empty(query.weight.shape[0], h, w, len(rows), len(columns), dtype=x.dtype)
    shifts = [(a, b, a - k // 2, b - k // 2) for a in range(k) for b in range(k)]
    for m, row in enumerate(rows):
        for n, column in enumerate(columns):
            plane = x[..., row, column]
            for i in range(h):
                for j in range(w):
                    total = query.bias + support.bias
                    for a, b, down, right in shifts:
                        total = total + query.weight[:, :, a, b] @ at(plane, i + down, j + right)
                        total = total + support.weight[:, :, a, b] @ at(x[:, i, j], row + down, column + right)
                    out[:, i, j, m, n] = total
    return out


def encoded(x: Tensor, encoder: object) -> Tensor:
    """Convolution, group normalisation over everything of a group, ReLU; three times."""
    layers = list(encoder)  # type: ignore[call-overload]
    for i in range(0, 9, 3):
        x = pivoted(x, layers[i])
        groups = x.reshape(4, -1)
        mean, variance = groups.mean(1, keepdim=True), groups.var(1, correction=0, keepdim=True)
        x = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        scale, shift = layers[i + 1].weight, layers[i + 1].bias
        x = (x * scale.reshape(-1, 1, 1, 1, 1) + shift.reshape(-1, 1, 1, 1, 1)).clamp(min=0)
    return x


def joined(coarse: Tensor, fine: Tensor) -> Tensor:
    moved = resized(coarse.permute(0, 3, 4, 1, 2), fine.shape[1], fine.shape[2]).permute(0, 3, 4, 1, 2)
    if moved.shape != fine.shape and 1 not in (moved.shape[-1], fine.shape[-1]):
        side = min(moved.shape[-1], fine.shape[-1])
        moved, fine = (torch.stack([torch.stack(row, -1) for row in averaged(x, side)], -2) for x in (moved, fine))
    return moved + fine


def averaged(x: Tensor, side: int) -> list[list[Tensor]]:
    """Means of the support plane over the cells that meet the i-th of ``side`` equal parts."""
    spans = [(math.floor(i * x.shape[-1] / side), math.ceil((i + 1) * x.shape[-1] / side)) for i in range(side)]
    return [[x[..., a:b, c:d].mean((-2, -1)) for c, d in spans] for a, b in spans]


def logits(head: HSNet, query: dict[int, list[Tensor]], support: dict[int, list[Tensor]], mask: Tensor) -> Tensor:
    """Score one episode: taps of stages as (C, h, w), the mask (H, W) with 1 on the object -> (2, 2h, 2w)."""
    squeezed = {}
    for stage in (4, 3, 2):
        channels = []
        for q, s in zip(query[stage], support[stage], strict=True):
            own, other = unit(q), unit(s * resized(mask, s.shape[1], s.shape[2]))
            channels.append(torch.einsum("cij,cuv->ijuv", own, other).clamp(min=0))
        squeezed[stage] = encoded(torch.stack(channels), head.encoders[str(stage)])
    x = encoded(joined(squeezed[4], squeezed[3]), head.joints["4to3"])
    x = encoded(joined(x, squeezed[2]), head.joints["3to2"]).mean((-2, -1))
    for layer in (head.decoder1[0], head.decoder1[2]):
        x = convolved(x, layer.weight, layer.bias).clamp(min=0)  # type: ignore[arg-type]
    x = resized(x, 2 * x.shape[1], 2 * x.shape[2])
    x = convolved(x, head.decoder2[0].weight, head.decoder2[0].bias).clamp(min=0)  # type: ignore[arg-type]
    return convolved(x, head.decoder2[2].weight, head.decoder2[2].bias)  # type: ignore[arg-type]
