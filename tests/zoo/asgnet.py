"""ASGNet: weights and inputs by formula, and what the converted network gives for them."""

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

from fss.methods.asgnet import ASGNet, Atrous, Pyramid
from fss.methods.releases import Released
from fss.methods.superpixels import nearest_cells, place_seeds
from fss.model.segmenter import FewShotSegmenter
from fss.nn.resize import up
from fss.types import EpisodeFeatures

VARIANTS = ("pyramid K=1", "pyramid K=5", "ASPP K=1", "ASPP K=5")
SLOW = ("pyramid K=5", "ASPP K=5")
SIZE, GRID = 161, (21, 21)
CLUSTERED = {  # a gain other than 1
    "down_conv.0.weight": 0.09,
    "cls.3.weight": 25,
    "cls_aux.3.weight": 25,
    **{f"inner_cls.{i}.3.weight": 25 for i in range(4)},
}
LOGITS = ((0, 0, 0, 0), (0, 1, 80, 80), (1, 0, 37, 120), (1, 1, 160, 5))
SUMS = ((0, 0, 0, 0), (0, 0, 10, 10), (1, 0, 4, 15), (1, 0, 20, 1))
# What the sheet says outside of its tables.
GRADIENTS = {
    "pyramid K=1": {"down_conv.0.weight": 2.23907838e01, "cls.3.weight": 1.34254317e00},
    "ASPP K=1": {"down_conv.0.weight": 8.37536767e00, "cls.3.weight": 1.51596194e00},
}
WITH_BATCH_STATISTICS = {
    "loss main": (8.91839344e-01,),
    "loss aux": (1.26418358e00,),
    "loss total": (2.15602292e00,),
    "layer3.5.bn2.running_mean": (8.39476338e-02, -9.19100485e-02),
}


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        value = 1 + 0.2 * np.abs(z)
    elif key.endswith("running_mean"):
        value = 0.1 * z
    elif z.ndim in (2, 4):
        value = z * np.sqrt(CLUSTERED.get(key, 1) / np.prod(shape[1:]))
    else:
        value = 1 + 0.1 * z if key.endswith(".weight") else 0.1 * z
    return torch.from_numpy(np.asarray(value))


def parts(variant: str) -> tuple[str, int]:
    form, shots = variant.split(" K=")
    return "asgnet" if form == "pyramid" else "asgnet_aspp", int(shots)


def model(folder: Path, variant: str) -> FewShotSegmenter:
    source, shots = parts(variant)
    return converted(folder, Released(source, "asgnet", "resnet50", "pascal", shots, "freeze", 0), fill)


def inputs(shots: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, supports, their labels, and the query's label."""
    rng = np.random.RandomState(7)
    x = rng.standard_normal((2, 3, SIZE, SIZE))
    sx = 0.5 * rng.standard_normal((2, 5, 3, SIZE, SIZE)) + 0.5 * x[:, None]
    labels = torch.zeros(2, 5, SIZE, SIZE, dtype=torch.uint8)
    for b in range(2):
        for k in range(5):
            labels[b, k, 8 + 5 * k : 151 - 4 * k, 10 + 10 * b : 153] = 1
            labels[b, k, 50 : 62 + 12 * k, 60:101] = 0
            labels[b, k, :4] = 255
    if shots == 5:
        labels[0, 3] = labels[1, 4] = 0
        labels[0, 3, 70:90, 70:90] = 1
    label = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
    label[:, 30:100, 40:120] = 1
    label[:, :3] = 255
    return torch.from_numpy(x), torch.from_numpy(sx)[:, :shots], labels[:, :shots], label


def expected(variant: str) -> dict[str, Numbers]:
    seeds, outputs, sums, losses, pyramid, aspp = tables.of("asgnet")
    shots = parts(variant)[1]
    found: dict[str, Numbers] = {}
    for row in seeds:
        if int(row["shot"]) < shots:
            found[f"seeds {row['item']} {row['shot']}"] = tuple(
                float(n) for n in re.findall(r"\d+", row["seeds in order"])
            )
    for row in outputs:
        if row["variant"].lower() == variant.lower():
            found["logits"] = tables.numbers(row, "mean", "std", "A", "B", "C", "D")
    for row in sums:
        if row["map"] == f"K={shots}":
            found["sum of cosines"] = tables.numbers(row, "mean", "std", "A", "B", "C", "D")
    for row in losses:
        if row["variant"] == variant:
            found |= {f"loss {name}": tables.numbers(row, name) for name in ("main", "aux", "total")}
    for row in {"pyramid K=1": pyramid, "ASPP K=1": aspp}.get(variant, []):
        found[row["tensor"]] = tables.numbers(row, "mean", "std")
        found[f"shape {row['tensor']}"] = tuple(map(float, row["shape"].strip("()").split(",")))
    if variant == "pyramid K=1":
        found |= {f"batch statistics: {name}": values for name, values in WITH_BATCH_STATISTICS.items()}
    return found | {f"gradient {name}": (value,) for name, value in GRADIENTS.get(variant, {}).items()}


def measured(model: FewShotSegmenter, variant: str) -> dict[str, Numbers]:
    head = model.head
    assert isinstance(head, ASGNet)
    *given, label = inputs(parts(variant)[1])
    found: dict[str, Numbers] = {}
    for b, row in enumerate(given[2]):
        for k, support in enumerate(row):
            seeds = place_seeds(nearest_cells(support == 1, GRID), 5, 100)
            found[f"seeds {b} {k}"] = tuple(map(float, seeds.flatten()))
    stem: dict[str, torch.nn.Module] = {f"query_feat_{i}": model.backbone.stage(i) for i in range(4)}
    with torch.no_grad(), listening(stem) as stages:
        features = model._features(*given, {})
    values = {name: maps[0][:2] for name, maps in stages.items()}
    with torch.no_grad():
        values |= inner(head, features)
    logits = up(values.pop("logits"), SIZE)
    found["logits"] = (*moments(logits), *(float(logits[p]) for p in LOGITS))
    sums = values.pop("sum of cosines")
    found["sum of cosines"] = (*moments(sums), *(float(sums[p]) for p in SUMS))
    for name, value in values.items():
        found[name], found[f"shape {name}"] = moments(value), tuple(map(float, value.shape))
    with training_without_dropout(head):
        found |= losses(head, features, label)
    names = head.releases[0 if isinstance(head.decoder, Pyramid) else 1].keys("resnet50").pairs
    for name, p in head.named_parameters():
        ours = f"head.{name}"
        theirs = next(t + ours.removeprefix(o) for t, o in names if ours.startswith(o))
        assert p.grad is not None
        found[f"gradient {theirs}"] = (float(p.grad.norm()),)
    if variant == "pyramid K=1":
        model.backbone.norm_mode = "train"
        with training_without_dropout(head), torch.no_grad():
            model.backbone.train()  # type: ignore[operator]
            own = losses(head, model._features(*given, {}), label, learn=False)
        own["layer3.5.bn2.running_mean"] = tuple(
            model.backbone.state_dict()["layer3.5.bn2.running_mean"][:2].tolist()  # type: ignore[operator]
        )
        found |= {f"batch statistics: {name}": values for name, values in own.items()}
    return found


def inner(head: ASGNet, features: EpisodeFeatures) -> dict[str, Tensor]:
    """Return what the sheet lists of a forward pass."""
    decoder = head.decoder
    listened: dict[str, torch.nn.Module] = {"down_conv": head.down_conv}
    given: list[tuple[Tensor, ...]] = []
    before = decoder.register_forward_pre_hook(lambda _, x: given.append(x))
    merged: list[Tensor] = []
    if isinstance(decoder, Pyramid):
        handle = decoder.cls.register_forward_pre_hook(lambda _, x: merged.append(x[0]))
        listened |= {f"pyramid{i}": beta for i, beta in enumerate(decoder.enrich.beta_conv)}
    else:
        assert isinstance(decoder, Atrous)
        handle = decoder.cls_aux.register_forward_pre_hook(lambda _, x: merged.append(x[0]))
        listened["decoder_out"] = decoder.last
    scales: list[tuple[Tensor, ...]] = []
    more = (
        [m.register_forward_pre_hook(lambda _, x: scales.append(x)) for m in decoder.enrich.beta_conv]
        if isinstance(decoder, Pyramid)
        else []
    )
    with listening(listened) as heard:
        output = head(features)
    for h in (before, handle, *more):
        h.remove()
    supports, query = heard["down_conv"][:-1], heard["down_conv"][-1]
    _, guide, sums, _ = given[0]
    found = {
        "query_feat": query,
        "supp_feat": torch.stack(supports, dim=1),
        "guide_feat": torch.cat([query, guide], dim=1),
        "sum of cosines": sums,
        "final_feat": merged[0],
        "logits": output.logits,
    }
    for i, (x,) in enumerate(scales):
        found[f"pyramid{i}"] = up(x + heard[f"pyramid{i}"][0], GRID)
    if "decoder_out" in heard:
        found["decoder_out"] = heard["decoder_out"][0]
    return found


def losses(head: ASGNet, features: EpisodeFeatures, label: Tensor, learn: bool = True) -> dict[str, Numbers]:
    """Return the terms of the loss; the sheet's rounds of clustering are those of training, its norms do not follow."""
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    terms = head.loss(head(features), {"query": label})
    if learn:
        head.zero_grad()
        terms["total"].backward()
    main, total = float(terms["main"].detach()), float(terms["total"].detach())
    return {"loss main": (main,), "loss aux": (total - main,), "loss total": (total,)}


def moments(values: Tensor) -> Numbers:
    return float(values.mean()), float(values.std(correction=0))
