"""CyCTR written from its formulas, position by position, for comparison."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fss.methods.cyctr import CyCTR
from fss.types import EpisodeFeatures


def resized(maps: Tensor, size: int) -> Tensor:
    """Bilinear with aligned corners, (..., H, W) -> (..., size, size), as a product with two matrices."""

    def matrix(side: int) -> Tensor:
        out = torch.zeros(size, side, dtype=torch.float64)
        for i in range(size):
            at = i * (side - 1) / (size - 1)
            low = min(int(at), side - 2)
            out[i, low], out[i, low + 1] = 1 - (at - low), at - low
        return out

    return matrix(maps.shape[-2]) @ maps @ matrix(maps.shape[-1]).T


def nearest(label: Tensor, size: int) -> Tensor:
    index = [i * label.shape[0] // size for i in range(size)]
    return label[index][:, index]


def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution of (C, h, w) as a sum over its shifts."""
    c_out, _, k, _ = weight.shape
    h, w = x.shape[1:]
    padded = torch.zeros(x.shape[0], h + k - 1, w + k - 1, dtype=x.dtype)
    padded[:, k // 2 : k // 2 + h, k // 2 : k // 2 + w] = x
    out = torch.zeros(c_out, h, w, dtype=x.dtype)
    for i in range(k):
        for j in range(k):
            out += torch.einsum("oc,chw->ohw", weight[:, :, i, j], padded[:, i : i + h, j : j + w])
    return out if bias is None else out + bias[:, None, None]


def position_code(padded: Tensor, channels: int) -> Tensor:
    h, w = padded.shape
    code = torch.zeros(h, w, channels, dtype=torch.float64)
    for i in range(h):
        for j in range(w):
            y = int((~padded[: i + 1, j]).sum()) / (int((~padded[:, j]).sum()) + 1e-6) * 2 * math.pi
            x = int((~padded[i, : j + 1]).sum()) / (int((~padded[i]).sum()) + 1e-6) * 2 * math.pi
            for c in range(channels // 4):
                scale = 10000 ** (2 * c / (channels / 2))
                code[i, j, 2 * c], code[i, j, 2 * c + 1] = math.sin(y / scale), math.cos(y / scale)
                half = channels // 2
                code[i, j, half + 2 * c], code[i, j, half + 2 * c + 1] = math.sin(x / scale), math.cos(x / scale)
    return code.reshape(h * w, channels)


def sampled(maps: Tensor, x: float, y: float) -> Tensor:
    """Read (c, h, w) at continuous cell coordinates, zero outside."""
    out = torch.zeros(maps.shape[0], dtype=maps.dtype)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]:
                out += (1 - abs(y - row)) * (1 - abs(x - column)) * maps[:, row, column]
    return out


def self_attention(layer: dict[str, Tensor], tokens: Tensor, code: Tensor, padded: Tensor, heads: int) -> Tensor:
    h, w = padded.shape
    c = tokens.shape[1] // heads
    values = tokens @ layer["value.weight"].T
    values[padded.flatten()] = 0
    asked = tokens + code
    offsets = (asked @ layer["offsets.weight"].T + layer["offsets.bias"]).reshape(-1, heads, 9, 2)
    weights = (asked @ layer["weights.weight"].T + layer["weights.bias"]).reshape(-1, heads, 9)
    out = torch.zeros_like(tokens)
    for n in range(len(tokens)):
        for head in range(heads):
            maps = values[:, head * c : (head + 1) * c].T.reshape(c, h, w)
            shares = weights[n, head].exp() / weights[n, head].exp().sum()
            for p in range(9):
                dx, dy = offsets[n, head, p].tolist()
                out[n, head * c : (head + 1) * c] += shares[p] * sampled(maps, n % w + dx, n // w + dy)
    return out @ layer["output.weight"].T


def cross_attention(
    layer: dict[str, Tensor], tokens: Tensor, keys: Tensor, flags: list[bool], padded: list[bool], heads: int
) -> Tensor:
    c = tokens.shape[1] // heads
    q, k, v = (x @ layer[f"{n}.weight"].T for x, n in ((tokens, "query"), (keys, "key"), (keys, "value")))
    out = torch.zeros_like(tokens)
    for head in range(heads):
        part = slice(head * c, (head + 1) * c)
        scores = q[:, part] @ k[:, part].T / math.sqrt(c)
        masked = scores.clone()
        for j in range(len(keys)):
            back = int(scores[int(scores[:, j].argmax())].argmax())
            if flags[j] != flags[back] or padded[j]:
                masked[:, j] -= 10000
        out[:, part] = masked.softmax(dim=1) @ v[:, part]
    return out @ layer["output.weight"].T


def logits(head: CyCTR, features: EpisodeFeatures, item: int, padding: Tensor, misread: bool) -> Tensor:
    """The logits of one episode all of whose support positions are keys, (2, h, w)."""
    state = head.state_dict()

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    def stacked(name: str, x: Tensor, *layers: int) -> Tensor:
        for i in layers:
            x = conv(x, state[f"{name}.{i}.weight"]).clamp(min=0)
        return x

    size = features.query[3].shape[-1]
    channels = state["adjust_query.0.weight"].shape[0]
    heads = 12 if channels % 12 == 0 else 8
    query = stacked("adjust_query", torch.cat([features.query[2][item], features.query[3][item]]), 0)
    prototypes, priors, tokens, classes, hidden = [], [], [], [], []
    for k, label in enumerate(features.support_labels[item]):
        support = stacked("adjust_support", torch.cat([features.support[i][item, k] for i in (2, 3)]), 0)
        mask = resized((label == 1).double(), size)
        prototype = (support * mask).sum(dim=(1, 2)) / (mask.sum() + 5e-4)
        prototypes.append(prototype)
        own = features.query[4][item].flatten(1)
        other = (features.support[4][item, k] * mask).flatten(1)
        similar = own.T @ other / (own.norm(dim=0)[:, None] * other.norm(dim=0) + 1e-7)
        best = similar.amax(dim=1)
        priors.append(((best - best.min()) / (best.max() - best.min() + 1e-7)).reshape(size, size))
        merged = torch.cat([support, prototype[:, None, None].expand_as(support)])
        tokens.append(stacked("merge_support", merged, 0).flatten(1).T)
        cells = nearest(label, size).flatten()
        classes += (cells == 1).tolist()
        hidden += (cells == 255).tolist()
    keys = torch.cat(tokens)
    read = list(range(len(classes)))
    if misread:
        background = [j for j, c in enumerate(classes) if not c]
        for i, j in enumerate(background):
            read[j] = i
    flags, hidden = [classes[j] for j in read], [hidden[j] for j in read]
    mean = torch.stack(prototypes).mean(dim=0)[:, None, None].expand_as(query)
    merged = stacked("merge_query", torch.cat([query, mean, torch.stack(priors).mean(dim=0)[None]]), 0)
    padded = nearest(padding, size) > 0
    code = position_code(padded, channels) + state["transformer.level"]
    x = merged.flatten(1).T

    def norm(x: Tensor, i: int) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        return scaled * state[f"transformer.norms.{i}.weight"] + state[f"transformer.norms.{i}.bias"]

    def ffn(x: Tensor, i: int) -> Tensor:
        wide = (x @ state[f"transformer.ffns.{i}.0.weight"].T).clamp(min=0)
        return x + wide @ state[f"transformer.ffns.{i}.3.weight"].T

    for b in range(2):
        own, cross = under(f"transformer.self_attention.{b}."), under(f"transformer.cross_attention.{b}.")
        x = norm(x + self_attention(own, x, code, padded, heads), 4 * b)
        x = norm(ffn(x, 2 * b), 4 * b + 1)
        x = norm(x + cross_attention(cross, x, keys, flags, hidden, heads), 4 * b + 2)
        x = norm(ffn(x, 2 * b + 1), 4 * b + 3)
    f = stacked("reduce", x.T.reshape(channels, size, size), 0)
    f = f + stacked("refine", f, 0, 2)
    return conv(stacked("cls", f, 0), state["cls.3.weight"], state["cls.3.bias"])
