"""DCAMA: weights and inputs by formula, and what the converted network gives for them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from tests.zoo import tables
from tests.zoo.conversion import converted, listening, training_without_dropout
from tests.zoo.tables import Numbers
from torch import Tensor

from fss.methods.dcama import DCAMA
from fss.methods.releases import Released
from fss.model.segmenter import FewShotSegmenter
from fss.nn.sine_position import sine_codes

SIZE = 120
VARIANTS = ("resnet50 K=1", "resnet50 K=5", "resnet101 K=1")
SLOW = ("resnet101 K=1",)
BATCH = {1: 2, 5: 1}


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.startswith("model.pe."):
        return sine_codes(shape[1], shape[2]).float()[None]
    z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if z.ndim in (2, 4):
        value = z - z.mean(axis=tuple(range(1, z.ndim)), keepdims=True)
        gain = 1.5 if "DCAMA_blocks" in key else 1.0
        if z.ndim == 4:
            gain = (1 if key.startswith("feature_extractor.") else 2) ** 0.5
        value = value * (gain / np.prod(shape[1:]) ** 0.5)
    elif key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    elif key.endswith("running_var"):
        value = 1 + 0.2 * np.abs(z)
    else:
        value = 1 + 0.1 * z if key.endswith(".weight") else 0.1 * z
    return torch.from_numpy(np.asarray(value))


def parts(variant: str) -> tuple[str, int]:
    backbone, shots = variant.split(" K=")
    return backbone, int(shots)


def model(folder: Path, variant: str) -> FewShotSegmenter:
    backbone, shots = parts(variant)
    return converted(folder, Released("dcama", "dcama", backbone, "coco", shots, "freeze", 0), fill)


def inputs(shots: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng, s, batch = np.random.RandomState(7), SIZE, BATCH[shots]
    query = torch.from_numpy(rng.standard_normal((batch, 3, s, s)))
    supports = torch.from_numpy(rng.standard_normal((batch, 5, 3, s, s)))
    supports = 0.5 * supports + 0.5 * query[:, None]
    labels = torch.zeros(batch, 5, s, s, dtype=torch.uint8)
    for b in range(batch):
        for k in range(5):
            labels[b, k, s // 8 + 3 * k : s // 2 + 5 * k, s // 5 + 6 * b : 3 * s // 4] = 1
            labels[b, k, :4] = 255
    label = torch.zeros(batch, s, s, dtype=torch.uint8)
    label[:, s // 5 : 3 * s // 5, s // 4 : 3 * s // 4] = 1
    label[:, :3] = 255
    return query, supports[:, :shots], labels[:, :shots], label


def expected(variant: str) -> dict[str, Numbers]:
    outputs, losses, stages = tables.of("dcama")
    found = {}
    for row in outputs:
        if row["variant"].startswith(f"{variant} "):
            found["logits"] = tables.numbers(row, "mean", "std", "a", "b", "c", "d")
    for row in losses:
        if row["variant"].startswith(f"{variant} "):
            found["loss main"], found["loss total"] = tables.numbers(row, "losses"), tables.numbers(row, "total")
            for entry in row["L2 norms of gradients"].split(";"):
                name, value = entry.strip().split()
                found[f"gradient {name.strip('`')}"] = (float(value),)
    for row in stages:
        if row["variant"].startswith(f"{variant} "):
            found[row["stage"]] = tables.numbers(row, "mean", "std")
    return found


def measured(model: FewShotSegmenter, variant: str) -> dict[str, Numbers]:
    head = model.head
    assert isinstance(head, DCAMA)
    *given, label = inputs(parts(variant)[1])
    with torch.no_grad():
        features = model._features(*given, {})
    listened = {
        **{f"coarse mask, first tap of stage {i}": head.attention[str(i)] for i in (2, 3, 4)},
        "conv3": head.coarse["2"],
        "conv4": head.mix["3"],
        "conv5": head.mix["2"],
        "mixer1": head.decode[0],
    }
    with torch.no_grad(), listening(listened) as heard:
        logits = head(features).logits
    batch, channels, height, width = logits.shape
    found = {
        "logits": (
            float(logits.mean()),
            float(logits.std(correction=0)),
            float(logits[0, 0, 0, 0]),
            float(logits[0, channels - 1, height // 2, width // 2]),
            float(logits[batch - 1, 0, height // 3, 2 * width // 3]),
            float(logits[batch - 1, channels - 1, height - 1, width // 4]),
        )
    }
    # The sheet speaks of the population's deviation; these are the sample's.
    found |= {name: (float(values[0].mean()), float(values[0].std())) for name, values in heard.items()}
    with training_without_dropout(head):
        terms = head.loss(head(features), {"query": label.where(label != 255, 0)})
        head.zero_grad()
        terms["total"].backward()
    found |= {f"loss {name}": (float(value.detach()),) for name, value in terms.items()}
    names = DCAMA.releases[0].keys(parts(variant)[0]).pairs
    for name, p in head.named_parameters():
        ours = f"head.{name}"
        theirs = next(t + ours.removeprefix(o) for t, o in names if ours.startswith(o))
        assert p.grad is not None
        found[f"gradient {theirs}"] = (float(p.grad.norm()),)
    return found
