"""HDMNet: weights and inputs by formula, and what the converted network gives for them."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import torch
from tests.zoo import tables
from tests.zoo.conversion import converted, listening, training_without_dropout
from tests.zoo.tables import Numbers
from torch import Tensor

from fss.methods.hdmnet import HDMNet
from fss.methods.releases import Released
from fss.model.segmenter import FewShotSegmenter
from fss.nn.resize import up

SIZE = 161
VARIANTS = ("K=1", "K=5")
SLOW = ("K=5",)
POINTS = ((0, 0, 0, 0), (0, 1, 80, 80), (1, 0, 37, 120), (1, 1, 160, 5))
LOSSES = {
    "CE(final) + CE(meta), returned as one": "main and meta",
    "distillation / 3": "distillation",
    "CE(base)": "base",
    "total": "total",
}


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key in ("gram_merge.weight", "cls_merge.weight"):
        value = np.array([1, 0.3]).reshape(1, 2, 1, 1) + 0.1 * z
    elif key.endswith("running_var"):
        value = 1 + 0.2 * np.abs(z)
    elif z.ndim in (2, 4):
        value = z * np.prod(shape[1:]) ** -0.5
    else:
        value = 1 + 0.1 * z if key.endswith(".weight") else 0.1 * z
    return torch.from_numpy(np.asarray(value))


def shots(variant: str) -> int:
    return int(variant.removeprefix("K="))


def model(folder: Path, variant: str) -> FewShotSegmenter:
    return converted(folder, Released("hdmnet", "hdmnet", "resnet50", "pascal", shots(variant), "freeze", 0), fill)


def inputs(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rng = np.random.RandomState(7)
    query = torch.from_numpy(rng.standard_normal((2, 3, SIZE, SIZE)))
    supports = torch.from_numpy(rng.standard_normal((2, 5, 3, SIZE, SIZE)))
    supports = 0.5 * supports + 0.5 * query[:, None]
    base = torch.from_numpy(rng.randint(0, 16, (2, SIZE, SIZE)).astype(np.uint8))
    labels = torch.zeros(2, 5, SIZE, SIZE, dtype=torch.uint8)
    for b in range(2):
        for k in range(5):
            labels[b, k, 20 + 5 * k : 90 + 7 * k, 30 + 10 * b : 110] = 1
            labels[b, k, :4] = 255
    label = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
    label[:, 30:100, 40:120] = 1
    label[:, :3] = 255
    return query, supports[:, :count], labels[:, :count], label, base


def expected(variant: str) -> dict[str, Numbers]:
    outputs, losses, *stages = tables.of("hdmnet")
    found = {}
    for row in outputs:
        name, shot = row["output"].split()
        if shot == variant:
            found[name] = tables.numbers(row, "mean", "std", *"ABCD")
    for row in losses:
        if row["losses"] == variant:
            found |= {f"loss {ours}": tables.numbers(row, theirs) for theirs, ours in LOSSES.items()}
    for row in stages[VARIANTS.index(variant)]:
        found[row["tensor"]] = tables.numbers(row, "mean", "std")
    for line in (tables.FOLDER / "hdmnet.md").read_text().splitlines():
        name, said, rest = line.partition(f", {variant}: ")
        if said and name == "Gradient norms":
            found |= {
                f"gradient {key}": (float(value),) for key, value in re.findall(r"`(\S+)` (\d\.\d+e[-+]\d+)", rest)
            }
        elif said:
            found[name] = tables.numbers({"": rest}, "")
    return found


def measured(model: FewShotSegmenter, variant: str) -> dict[str, Numbers]:
    head = model.head
    assert isinstance(head, HDMNet)
    *given, label, base = inputs(shots(variant))
    with torch.no_grad():
        features = model._features(*given, {})
    listened = {name: getattr(head, name) for name in ("merge_query", "merge_support", "gram_merge", "cls_merge")}
    listened |= {f"down{i}": head.transformer.down[i] for i in range(3)}
    merged: list[Tensor] = []
    matched: list[tuple[Tensor, list[Tensor]]] = []
    handles = (
        head.merge_query.register_forward_pre_hook(lambda _, x: merged.append(x[0].detach())),
        head.transformer.register_forward_hook(lambda _, __, out: matched.append(out)),
    )
    with torch.no_grad(), listening(listened) as heard:
        output = head(features)
        psi = head._style_distance(features)
        weights = head._shot_weights(psi)
    for handle in handles:
        handle.remove()
    maps = {
        "final_out": output.logits,
        "meta_out": output.branch_logits["meta"],
        "base_out": output.branch_logits["base"],
    }
    found = {name: points(up(logits, SIZE)) for name, logits in maps.items()}
    meta, correlations = matched[0]
    queries = features.query
    values = {
        "similarity": merged[0][:, -2:] / 10,
        "base_map": head._any_base(features.extras["base_logits"], {}, meta),
        "meta_map_bg": heard["gram_merge"][0],
        "meta_map_fg": heard["gram_merge"][1],
        "merge_bg": heard["cls_merge"][0],
        "prototype": merged[0][:, 256:512, 0, 0],
        "meta_grid": meta,
        **{f"query_feat_{i}": queries[i] for i in (2, 3, 4)},
        # The sheet says before the ReLU; its numbers are what the ReLU in place has left.
        "query_feat_5": features.extras["base_embedding"].relu(),
        "supp_feat_2": features.support[2],
        "query_feat": heard["merge_query"][0],
        "supp_feat": torch.cat(heard["merge_support"]),
        **{f"correlation{i}": m for i, m in enumerate(correlations)},
    }
    for level in range(3):
        query, *supports = heard[f"down{level}"]
        values |= {f"down_query{level}": query, f"down_support{level}": torch.cat(supports)}
    found |= {name: moments(value) for name, value in values.items()}
    found["Style distances"] = tuple(psi.flatten().tolist())
    found["Weights of the supports"] = tuple(weights.flatten().tolist())
    found["Weighted distance"] = tuple((weights * psi).sum(dim=1).tolist())
    features.query_label = label
    features.extras = {**features.extras, "base_index": torch.tensor([3, 7])}
    with training_without_dropout(head):
        terms = head.loss(head(features), {"query": label, "base": base})
        head.zero_grad()
        terms["total"].backward()
    terms["main and meta"] = terms["main"] + terms["meta"]
    found |= {f"loss {name}": (float(value.detach()),) for name, value in terms.items()}
    names = HDMNet.releases[0].keys("resnet50").pairs
    for name, p in head.named_parameters():
        ours = f"head.{name}"
        theirs = next(t + ours.removeprefix(o) for t, o in names if ours.startswith(o))
        assert p.grad is not None
        found[f"gradient {theirs}"] = (float(p.grad.norm()),)
    return found


def points(values: Tensor) -> Numbers:
    return (*moments(values), *(float(values[p]) for p in POINTS))


def moments(values: Tensor) -> Numbers:
    return float(values.mean()), float(values.std(correction=0))
