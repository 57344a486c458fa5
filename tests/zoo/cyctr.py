"""CyCTR: weights and inputs by formula, and what the converted network gives for them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from tests.zoo import tables
from tests.zoo.conversion import converted, listening, training_without_dropout
from tests.zoo.tables import Numbers
from torch import Tensor

from fss.methods.cyctr import CyCTR
from fss.methods.releases import Released
from fss.model.segmenter import FewShotSegmenter
from fss.nn.resize import up
from fss.nn.sine_position import sine_grid

SIZE = 97
VARIANTS = ("K=1", "K=5")
SLOW: tuple[str, ...] = ()
_COLUMNS = "[0,0,0,0] [0,1,48,48] [0,0,20,77] [-1,1,96,5] [-1,0,63,31] [-1,1,33,60]"
POINTS = {column: tuple(map(int, column.strip("[]").split(","))) for column in _COLUMNS.split()}
LOSSES = {"main_loss": "main", "aux_loss": "support", "total": "total"}
SHARE = "1 wins"


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    seed = zlib.crc32(f"zoo:{key}".encode())
    z = np.random.RandomState(seed).standard_normal(shape)
    u = np.random.RandomState(seed).random_sample(shape)
    fan_in = np.prod(shape[1:])
    if z.ndim == 4:
        value = np.sqrt(2 / fan_in) * z
        value = value - 0.7 * value.mean(axis=(1, 2, 3), keepdims=True)
        value = value * (2 if key.startswith(("cls.3", "supp_cls.3")) else 1)
    elif key.endswith("level_embed"):
        value = 0.5 * z
    elif z.ndim == 2:
        value = np.sqrt(1 / fan_in) * z * (2 if "q_fc" in key or "attention_weights" in key else 1)
    elif key.endswith(".weight"):
        value = (0.5 + u) * (0.3 if ".layer" in key and "bn3" in key else 1)
    elif key.endswith("running_var"):
        value = 0.5 + u
    elif key.endswith("sampling_offsets.bias"):
        value = 3 * z
    elif key.endswith(("attention_weights.bias", "cls.3.bias")):
        value = 0.05 * z
    else:
        value = 0.1 * z
    return torch.from_numpy(np.asarray(value))


def shots(variant: str) -> int:
    return int(variant.removeprefix("K="))


def model(folder: Path, variant: str) -> FewShotSegmenter:
    return converted(folder, Released("cyctr", "cyctr", "resnet50", "pascal", shots(variant), "freeze", 0), fill)


def inputs(count: int) -> dict[str, Tensor]:
    rng = np.random.RandomState(20211)
    query = torch.from_numpy(rng.standard_normal((2, 3, SIZE, SIZE)))
    supports = torch.from_numpy(rng.standard_normal((2, 5, 3, SIZE, SIZE)))
    supports = 0.5 * supports + 0.5 * query[:, None]
    labels = torch.zeros(2, 5, SIZE, SIZE, dtype=torch.uint8)
    for b in range(2):
        for k in range(5):
            labels[b, k, 10 + 4 * k : 50 + 6 * k, 20 + 8 * b : 70] = 1
            labels[b, k, :3] = 255
            labels[b, k, :, 94:] = 255
            if k % 2:
                labels[b, k, :, 85:] = 255
            else:
                labels[b, k, 85:] = 255
    label, padding = torch.zeros(2, 2, SIZE, SIZE, dtype=torch.uint8)
    label[:, 24:72, 16:64] = 1
    label[:, 60:64] = 255
    padding[0, :, 85:] = 255
    padding[1, 85:] = 255
    label[padding == 255] = 255
    found = {"query": query, "support_images": supports[:, :count], "support_masks": labels[:, :count]}
    return {**found, "query_label": label, "query_padding": padding}


def expected(variant: str) -> dict[str, Numbers]:
    outputs, losses, stages, norms = tables.of("cyctr")
    found = {}
    for row in outputs:
        if row["variant"] == variant:
            found["logits"] = tables.numbers(row, "mean", "std", *POINTS)
            found[SHARE] = tables.numbers(row, SHARE)
    for row in losses:
        if row["variant"] == variant:
            found |= {f"loss {ours}": tables.numbers(row, theirs) for theirs, ours in LOSSES.items()}
    for row in stages:
        if row["variant"] == variant:
            found[row["tensor"]] = tables.numbers(row, "mean", "std", "first", "last")
    return found | {f"gradient {row['parameter'].strip('`')}": tables.numbers(row, variant) for row in norms}


def measured(model: FewShotSegmenter, variant: str) -> dict[str, Numbers]:
    head = model.head
    assert isinstance(head, CyCTR)
    given = inputs(shots(variant))
    label, padding = given.pop("query_label"), given.pop("query_padding")
    with torch.no_grad():
        features = model._features(*given.values(), {})
    features.extras = {"query_padding": padding}
    transformer = head.transformer
    listened = {
        "qry_merge_feat": head.merge_query,
        "supp_merge_feat": head.merge_support,
        "self": transformer.self_attention[0],
        "cross": transformer.cross_attention[0],
        "self2": transformer.self_attention[1],
        "cross2": transformer.cross_attention[1],
        "transformer output": transformer,
        "cls output": head.cls,
    }
    merged: list[Tensor] = []
    before = head.merge_query.register_forward_pre_hook(lambda _, x: merged.append(x[0].detach()))
    with torch.no_grad(), listening(listened) as heard:
        logits = up(head(features).logits, SIZE)
    before.remove()
    found = {"logits": (*moments(logits), *(float(logits[p]) for p in POINTS.values()))}
    found[SHARE] = (round(float((logits[:, 1] > logits[:, 0]).double().mean()), 4),)
    cells = torch.nn.functional.interpolate(padding[:, None].double(), size=13)[:, 0] > 0
    for name, value in {
        **{f"query stage {i}": features.query[i] for i in (2, 3, 4)},
        "support stage 4 (B K in front)": features.support[4].flatten(0, 1),
        "prior (mean over shots)": merged[0][:, 512:],
        "mean prototype": merged[0][:, 256:512, 0, 0],
        "qry_merge_feat": heard["qry_merge_feat"][0],
        "supp_merge_feat": torch.stack(heard["supp_merge_feat"], dim=1).flatten(0, 1),
        "sine position without level_embed": sine_grid(cells, 256),
        "first self-attention, before residual": heard["self"][0],
        "first cross-attention, before residual": heard["cross"][0],
        "second self-attention": heard["self2"][0],
        "second cross-attention": heard["cross2"][0],
        "transformer output": heard["transformer output"][0],
        "cls output": heard["cls output"][0],
    }.items():
        found[name] = (*moments(value), float(value.flatten()[0]), float(value.flatten()[-1]))
    features.query_label = label
    with training_without_dropout(head):
        labels = {"query": label, "support": given["support_masks"].flatten(0, 1)}
        terms = head.loss(head(features), labels)
        head.zero_grad()
        terms["total"].backward()
    found |= {f"loss {name}": (float(value.detach()),) for name, value in terms.items()}
    names = CyCTR.releases[0].keys("resnet50").pairs
    for name, p in head.named_parameters():
        ours = f"head.{name}"
        theirs = next(t + ours.removeprefix(o) for t, o in names if ours.startswith(o))
        assert p.grad is not None
        found[f"gradient {theirs}"] = (float(p.grad.norm()),)
    return found


def moments(values: Tensor) -> Numbers:
    return float(values.mean()), float(values.std(correction=0))
