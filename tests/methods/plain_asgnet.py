"""ASGNet written from its formulas, cell by cell, for comparison."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from tests.methods.plain_hsnet import at, resized
from torch import Tensor, nn

from fss.methods.asgnet import ASGNet, Atrous, Pyramid
from fss.types import EpisodeFeatures


def seeds(mask: Tensor, height: int, width: int, most: int, area: int) -> list[tuple[int, int]]:
    """Those of the release, with scipy's distance transform, its artefact and its way of counting included."""
    cells = np.array(
        [
            [bool(mask[i * mask.shape[0] // height, j * mask.shape[1] // width]) for j in range(width)]
            for i in range(height)
        ]
    )
    number = int(np.round(cells.sum() / area))  # halves to the even number
    number = min(number, most)
    places = np.argwhere(cells)
    if number == 0:
        return []
    (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0)
    box = cells[top : bottom + 1, left : right + 1].copy()
    found = []
    for _ in range(number):
        distances = ndimage.distance_transform_edt(box)
        row, column = np.unravel_index(distances.argmax(), box.shape)
        box[row, column] = False
        found.append((int(top + row), int(left + column)))
    counted = max(sum(r != 0 for r, _ in found), sum(c != 0 for _, c in found))
    return found[:counted]


def prototypes(features: Tensor, label: Tensor, rounds: int, most: int, area: int) -> list[Tensor]:
    """Of one support: features (C, h, w), label (H, W)."""
    _, height, width = features.shape
    mask = (label == 1).double()
    soft = resized(mask, height, width)
    cells = [(i, j) for i in range(height) for j in range(width)]
    inside = [(i, j) for i, j in cells if soft[i, j] > 1 - 1e-9]
    starts = seeds(label == 1, height, width, most, area)
    if len(starts) <= 1 or not inside:
        total = sum(soft[i, j] * features[:, i, j] for i, j in cells)
        return [total / (soft.sum() + 5e-4)]  # type: ignore[list-item]
    centres = [(features[:, i, j], float(i), float(j)) for i, j in starts]
    for _ in range(rounds):
        moved = []
        for own, row, column in centres:
            weights = []
            for i, j in inside:
                far = ((i - row) ** 2 + (j - column) ** 2) / 100
                weights.append(math.exp(-math.sqrt(float(((features[:, i, j] - own) ** 2).sum()) + far)))
            shares = [w / sum(weights) for w in weights]
            moved.append(
                (
                    sum(s * features[:, i, j] for s, (i, j) in zip(shares, inside, strict=True)),
                    sum(s * i for s, (i, _) in zip(shares, inside, strict=True)),
                    sum(s * j for s, (_, j) in zip(shares, inside, strict=True)),
                )
            )
        centres = moved  # type: ignore[assignment]
    return [own for own, _, _ in centres]


def pooled(maps: Tensor, side: int) -> Tensor:
    """Means over the positions that meet the i-th of ``side`` equal parts of either axis."""

    def spans(n: int) -> list[tuple[int, int]]:
        return [(i * n // side, -((-(i + 1) * n) // side)) for i in range(side)]

    rows = [
        torch.stack([maps[:, a:b, c:d].mean((1, 2)) for c, d in spans(maps.shape[2])], dim=1)
        for a, b in spans(maps.shape[1])
    ]
    return torch.stack(rows, dim=1)


def conv(x: Tensor, layer: nn.Module, relu: bool = True) -> Tensor:
    """A convolution by definition, the size kept; its nine weights may be some cells apart."""
    assert isinstance(layer, nn.Conv2d)
    k, rate, weight = layer.kernel_size[0], layer.dilation[0], layer.weight
    steps = [(a, b, (a - k // 2) * rate, (b - k // 2) * rate) for a in range(k) for b in range(k)]
    rows = []
    for i in range(x.shape[1]):
        cells = []
        for j in range(x.shape[2]):
            terms = [weight[:, :, a, b] @ at(x, i + down, j + right) for a, b, down, right in steps]
            cells.append(sum(terms) if layer.bias is None else sum(terms) + layer.bias)
        rows.append(torch.stack(cells, dim=1))  # type: ignore[arg-type]
    out = torch.stack(rows, dim=1)
    return out.clamp(min=0) if relu else out


def scores(x: Tensor, classifier: nn.Module) -> Tensor:
    return conv(conv(x, classifier[0]), classifier[3], relu=False)  # type: ignore[index]


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    return (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


def logits(head: ASGNet, features: EpisodeFeatures, item: int, rounds: int) -> tuple[Tensor, list[Tensor]]:
    """Score one episode: the logits, and those of the auxiliary losses."""
    projection = head.down_conv[0].weight[:, :, 0, 0]  # type: ignore[union-attr, index]

    def reduced(three: Tensor, two: Tensor) -> Tensor:
        two = resized(two, three.shape[1], three.shape[2])
        return torch.einsum("oc,chw->ohw", projection, torch.cat([three, two]))

    query = reduced(features.query[3][item], features.query[2][item])
    _, height, width = query.shape
    every = []
    for k in range(features.support_labels.shape[1]):
        support = reduced(features.support[3][item, k], features.support[2][item, k])
        label = features.support_labels[item, k]
        every += prototypes(support.detach(), label, rounds, head.prototypes, head.prototype_area)
    guide, sums = torch.empty_like(query), torch.empty_like(query[:1])
    for i in range(height):
        for j in range(width):
            own = query[:, i, j]
            length = own.norm().clamp(min=1e-7)
            similar = [own @ p / length / p.norm().clamp(min=1e-7) for p in every]
            values = [float(s.detach()) for s in similar]
            guide[:, i, j] = every[values.index(max(values))]
            sums[0, i, j] = sum(similar)
    if isinstance(head.decoder, Pyramid):
        return pyramid(head.decoder, query, guide, sums)
    return atrous(head.decoder, torch.cat([query, guide, sums]), features.query[1][item])


def pyramid(decoder: Pyramid, query: Tensor, guide: Tensor, sums: Tensor) -> tuple[Tensor, list[Tensor]]:
    _, height, width = query.shape
    full: list[Tensor] = []
    others = []
    for i, bin_ in enumerate(decoder.enrich.bins):
        side = int(bin_) if bin_ > 1 else int(bin_ * height)
        given = torch.cat([pooled(query, side), pooled(guide, side), resized(sums, side, side)])
        x = conv(given, decoder.enrich.init_merge[i][0])  # type: ignore[index]
        if full:
            finer = resized(full[-1], side, side)
            x = x + conv(torch.cat([x, finer]), decoder.enrich.alpha_conv[i - 1][0])  # type: ignore[index]
        own = decoder.enrich.beta_conv[i]
        x = x + conv(conv(x, own[0]), own[2])  # type: ignore[index]
        others.append(scores(x, decoder.enrich.inner_cls[i]))
        full.append(resized(x, height, width))
    x = conv(torch.cat(full), decoder.res1[0])
    x = x + conv(conv(x, decoder.res2[0]), decoder.res2[2])
    return scores(x, decoder.cls), others


def atrous(decoder: Atrous, x: Tensor, fine: Tensor) -> tuple[Tensor, list[Tensor]]:
    x = conv(x, decoder.merge[0])
    for skip in decoder.skips:
        x = x.clamp(min=0)
        x = x + conv(conv(x, skip[0]), skip[2], relu=False)  # type: ignore[index]
    branches = [branch[0] for branch in decoder.aspp.branches]  # type: ignore[index]
    mean = conv(x.mean((1, 2), keepdim=True), branches[0]).expand_as(x)
    x = conv(torch.cat([mean, *(conv(x, branch) for branch in branches[1:])]), decoder.reduce[0])
    low = normed(conv(fine, decoder.fine[0], relu=False), decoder.fine[1]).clamp(min=0)
    joined = torch.cat([resized(x, low.shape[1], low.shape[2]), low])
    last = normed(conv(joined, decoder.last[0], relu=False), decoder.last[1]).clamp(min=0)
    return scores(last, decoder.cls), [scores(x, decoder.cls_aux)]
