"""HDMNet written from its formulas, one episode, position and head at a time, for comparison."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fss.methods.hdmnet import HDMNet
from fss.types import EpisodeFeatures


class Scores(NamedTuple):
    """Of one episode: final (2, h, w), meta (2, h, w), similarities to the object, coarse to fine, and psi (K)."""

    final: Tensor
    meta: Tensor
    levels: list[Tensor]
    psi: Tensor


def resized(maps: Tensor, size: tuple[int, int], corners: bool = True) -> Tensor:
    """Bilinear, (..., H, W) -> (..., h, w), as a product with two matrices."""

    def matrix(side: int, new: int) -> Tensor:
        out = torch.zeros(new, side, dtype=torch.float64)
        for i in range(new):
            at = i * (side - 1) / (new - 1) if corners else max((i + 0.5) * side / new - 0.5, 0.0)
            low = min(int(at), side - 1)
            out[i, low] += 1 - (at - low)
            out[i, min(low + 1, side - 1)] += at - low
        return out

    return matrix(maps.shape[-2], size[0]) @ maps @ matrix(maps.shape[-1], size[1]).T


def nearest(mask: Tensor, size: tuple[int, int]) -> Tensor:
    rows = [i * mask.shape[0] // size[0] for i in range(size[0])]
    columns = [j * mask.shape[1] // size[1] for j in range(size[1])]
    return mask[rows][:, columns]


def conv(x: Tensor, layer: Any) -> Tensor:
    """A convolution of (C, h, w) as a sum over the cells of its kernel."""
    weight, step, pad = layer.weight, layer.stride[0], layer.padding[0]
    k = weight.shape[2]
    c, h, w = x.shape
    padded = torch.zeros(c, h + 2 * pad, w + 2 * pad, dtype=x.dtype)
    padded[:, pad : pad + h, pad : pad + w] = x
    rows, columns = (h + 2 * pad - k) // step + 1, (w + 2 * pad - k) // step + 1
    out = torch.zeros(weight.shape[0], rows, columns, dtype=x.dtype)
    for i in range(k):
        for j in range(k):
            seen = padded[:, i : i + step * (rows - 1) + 1 : step, j : j + step * (columns - 1) + 1 : step]
            if weight.shape[1] == 1 and c > 1:
                out = out + weight[:, 0, i, j, None, None] * seen
            else:
                out = out + torch.einsum("oc,chw->ohw", weight[:, :, i, j], seen)
    return out if layer.bias is None else out + layer.bias[:, None, None]


def affine(x: Tensor, layer: Any) -> Tensor:
    """Batch norm by its stored statistics."""
    columns = (v[:, None, None] for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias))
    mean, variance, weight, bias = columns
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def normed(x: Tensor, layer: Any) -> Tensor:
    """Layer norm over channels, (C, h, w)."""
    mean = x.mean(dim=0)
    variance = (x - mean).square().mean(dim=0)
    return (x - mean) / (variance + 1e-6).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def feed_forward(x: Tensor, layer: Any) -> Tensor:
    wide, deep, _, _, narrow, _ = layer
    return conv(gelu(conv(conv(x, wide), deep)), narrow)


def heads(tokens: Tensor, layer: Any, count: int) -> list[Tensor]:
    """Project tokens (N, C) and cut them, count of (N, C / count)."""
    return list((tokens @ layer.weight.T).chunk(count, dim=1))


def self_attention(x: Tensor, layer: Any) -> Tensor:
    c, h, w = x.shape
    keys = normed(conv(x, layer.reduce), layer.reduce_norm) if layer.reduction > 1 else x
    q, kv = x.reshape(c, -1).T, keys.reshape(c, -1).T
    found = []
    for query, key, value in zip(
        heads(q, layer.query, layer.heads), heads(kv, layer.key, layer.heads), heads(kv, layer.value, layer.heads),
        strict=True,
    ):  # fmt: skip
        scores = query @ key.T / math.sqrt(query.shape[1])
        found.append(torch.softmax(scores, dim=1) @ value)
    return (torch.cat(found, dim=1) @ layer.output.weight.T).T.reshape(c, h, w)


def encoded(x: Tensor, stage: Any) -> Tensor:
    x = normed(conv(x, stage.embed), stage.embed_norm)
    for layer in stage.layers:
        x = x + self_attention(normed(x, layer.norm1), layer.attention)
        x = x + feed_forward(normed(x, layer.norm2), layer.ffn)
    return normed(x, stage.norm)


def cross(query: Tensor, supports: list[Tensor], masks: list[Tensor], layer: Any) -> tuple[Tensor, Tensor]:
    """All support positions are keys; those of the background are set to zero after the softmax over the query."""
    c, h, w = query.shape
    q = normed(query, layer.norm1).reshape(c, -1).T
    kv = torch.cat([normed(s, layer.norm1).reshape(c, -1).T for s in supports])
    inside = torch.cat([m.flatten() for m in masks])
    a, found, similar = layer.attention, [], []
    for one, key, value in zip(heads(q, a.query, 2), heads(kv, a.key, 2), heads(kv, a.value, 2), strict=True):
        cosines = one @ key.T / (one.norm(dim=1)[:, None] * key.norm(dim=1)[None])
        shares = torch.exp(10 * cosines)
        shares = shares / shares.sum(dim=0)
        found.append((shares * inside) @ value)
        similar.append((10 * cosines * inside).sum(dim=1) / max(float(inside.sum()), 1.0))
    x = query + (torch.cat(found, dim=1) @ a.output.weight.T).T.reshape(c, h, w)
    x = x + feed_forward(normed(x, layer.norm2), layer.ffn)
    return x, ((similar[0] + similar[1]) / 2).reshape(h, w)


def best(query: Tensor, supports: list[Tensor], masks: list[Tensor]) -> Tensor:
    """Mean over the supports of the best cosine of each position of the query, (h, w)."""
    total = torch.zeros(query.shape[1:], dtype=torch.float64)
    for support, mask in zip(supports, masks, strict=True):
        s = (support * nearest(mask, (support.shape[1], support.shape[2]))).flatten(1)
        q = query.flatten(1)
        cosines = q.T @ s / (q.norm(dim=0)[:, None] * s.norm(dim=0)[None] + 1e-7)
        total = total + cosines.max(dim=1).values.reshape(query.shape[1:])
    return total / len(supports)


def gram(maps: Tensor) -> Tensor:
    rows = maps.flatten(1)
    length = rows.square().sum(dim=1).sqrt()
    return rows @ rows.T / (length[:, None] * length[None] + 1e-7)


def shot_weights(psi: Tensor, net: Any, release: bool) -> Tensor:
    """In the order of the supports, or as the release leaves them in ascending order of psi."""
    if len(psi) == 1:
        return torch.ones(1, dtype=torch.float64)
    order = sorted(range(len(psi)), key=lambda k: float(psi[k]))
    first, _, second = net
    hidden = (first.weight[:, :, 0, 0] @ psi[order] + first.bias).clamp(min=0)
    ascending = torch.softmax(second.weight[:, :, 0, 0] @ hidden + second.bias, dim=0)
    return ascending if release else torch.stack([ascending[order.index(k)] for k in range(len(psi))])


def scores(
    net: HDMNet, features: EpisodeFeatures, item: int, own_class: int | None = None, release: bool = False
) -> Scores:
    query = {i: maps[item] for i, maps in features.query.items()}
    shots = range(features.support_labels.shape[1])
    supports = [{i: maps[item, k] for i, maps in features.support.items()} for k in shots]
    masks = [(features.support_labels[item, k] == 1).double() for k in shots]
    size = (query[3].shape[1], query[3].shape[2])

    def reduced(maps: dict[int, Tensor], layer: Any) -> Tensor:
        joined = torch.cat([maps[3], resized(maps[2], size)])
        return conv(joined, layer[0]).clamp(min=0)

    q = reduced(query, net.down_query)
    prototypes, tokens = [], []
    for maps, mask in zip(supports, masks, strict=True):
        s, soft = reduced(maps, net.down_supp), resized(mask, size)
        prototypes.append((s * soft).sum(dim=(1, 2)) / (soft.sum() + 0.0005))
        tokens.append(
            conv(torch.cat([s, prototypes[-1][:, None, None].expand_as(s)]), net.merge_support[0]).clamp(min=0)
        )
    embedding = [features.extras["support_base_embedding"][item, k] for k in shots]
    similarity = torch.stack(
        [
            resized(best(features.extras["base_embedding"][item], embedding, masks), size),
            resized(best(query[4], [maps[4] for maps in supports], masks), size),
        ]
    )
    prototype = torch.stack(prototypes).mean(dim=0)[:, None, None].expand_as(q)
    x = conv(torch.cat([q, prototype, 10 * similarity]), net.merge_query[0]).clamp(min=0)
    t, matched, levels = net.transformer, [], []
    for down, match, join in zip(t.down, t.match, t.join, strict=True):
        x, tokens = encoded(x, down), [encoded(s, down) for s in tokens]  # type: ignore[arg-type]
        cells = [nearest(mask, (s.shape[1], s.shape[2])) for mask, s in zip(masks, tokens, strict=True)]
        found, level = cross(x, tokens, cells, match)
        around = torch.cat([found, resized(similarity, (x.shape[1], x.shape[2]))])
        matched.append(affine(conv(around, join[0]), join[1]).clamp(min=0))  # type: ignore[index]
        levels.append(level)

    def parsed(maps: Tensor, layer: Any) -> Tensor:
        for i in (0, 2, 4):
            maps = affine(conv(maps, layer[i]), layer[i + 1])
        return maps.clamp(min=0)

    out = parsed(matched[2], t.parse[2])
    for level in (1, 0):
        up = resized(out, (matched[level].shape[1], matched[level].shape[2]), corners=False)
        out = up + parsed(matched[level] + up, t.parse[level])
    for i in (0, 2):
        out = affine(conv(out, t.cls[i]), t.cls[i + 1])
    meta = conv(out, t.cls[4])
    own = gram(resized(query[2], size))
    psi = torch.stack([(own - gram(resized(s[2], size))).square().sum().sqrt() / len(own) for s in supports])
    est = (shot_weights(psi, net.kshot_rw, release) * psi).sum()
    base = torch.softmax(features.extras["base_logits"][item], dim=0)
    counted = [c for c in range(1, len(base)) if own_class is None or c != own_class + 1]
    any_base = resized(base[counted].sum(dim=0), size)
    background, foreground = torch.softmax(meta, dim=0)
    a, b = net.gram_merge.weight.flatten()
    c, d = net.cls_merge.weight.flatten()
    final = torch.stack([c * (a * background + b * est) + d * any_base, a * foreground + b * est])
    return Scores(final, meta, levels[::-1], psi)


def divergence(levels: list[Tensor], label: Tensor) -> Tensor:
    """The mean over the levels for one query."""
    teacher = torch.where(label == 1, 1.0, -1e9).double()
    total = torch.zeros((), dtype=torch.float64)
    for level in levels:
        target = resized(teacher, (level.shape[0], level.shape[1]), corners=False).flatten()
        wanted, had = torch.softmax(target, dim=0), torch.softmax(level.flatten(), dim=0)
        for p, q in zip(wanted, had, strict=True):
            if float(p) > 0:
                total = total + p * (p.log() - q.log())
        teacher = level.detach()
    return total / len(levels)


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over the pixels that are not ignored, of logits (B, classes, h, w) and labels (B, H, W)."""
    large = resized(logits, (label.shape[1], label.shape[2]))
    shares = large.exp() / large.exp().sum(dim=1, keepdim=True)
    picked = [shares[b, int(label[b, i, j]), i, j].log() for b, i, j in (label != 255).nonzero().tolist()]
    return -torch.stack(picked).mean()
