"""HSNet: weights and inputs by formula, and what the converted network gives for them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tests.zoo import tables
from tests.zoo.conversion import converted
from tests.zoo.tables import Numbers
from torch import Tensor, nn

from fss.methods.hsnet import STAGES, HSNet
from fss.methods.releases import Released
from fss.model.segmenter import FewShotSegmenter
from fss.nn.correlation.cosine import correlation, normalised
from fss.nn.prototype import support_mask
from fss.nn.resize import up

VARIANTS = ("161 K=1", "161 K=5", "264 K=1")
SLOW = ("161 K=5",)
Point = tuple[int, int, int, int]
LOGITS: dict[int, list[Point]] = {
    161: [(0, 0, 0, 0), (0, 1, 80, 80), (1, 0, 37, 120), (1, 1, 160, 5)],
    264: [(0, 0, 0, 0), (0, 1, 131, 131), (0, 0, 37, 200), (0, 1, 263, 5)],
}
SHOTS: list[Point] = [(0, 0, 0, 0), (0, 1, 20, 20), (1, 0, 9, 30), (1, 1, 41, 1)]
# What the sheet says outside of its tables.
LOSS = {"161 K=1": 7.11120367e-01, "264 K=1": 6.86181573e-01}
VOTES = [[2694, 3620, 922, 11954, 2070, 4661], [3635, 2648, 701, 12450, 4375, 2112]]
MASKS = {"161 K=1": [22681, 21588], "161 K=5": [18685, 18937]}
GRADIENTS = {
    "hpn_learner.encoder_layer2.0.conv1.weight": 1.00499800e-01,
    "hpn_learner.encoder_layer2.0.conv2.weight": 1.40138367e-01,
    "hpn_learner.encoder_layer4to3.3.conv2.weight": 1.99510691e-01,
    "hpn_learner.decoder2.2.weight": 1.84517648e00,
}


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.startswith("backbone.fc."):
        return torch.zeros(shape, dtype=torch.float64)
    if key == "hpn_learner.decoder2.2.bias":
        return torch.tensor([0.06, -0.06], dtype=torch.float64)
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        value = 1 + 0.2 * np.abs(z)
    elif key.endswith("running_mean"):
        value = 0.1 * z
    elif z.ndim in (2, 4):
        value = z * np.sqrt(1 / np.prod(shape[1:]))
    else:
        value = 1 + 0.1 * z if key.endswith(".weight") else 0.1 * z
    return torch.from_numpy(np.asarray(value))


def parts(variant: str) -> tuple[int, int]:
    size, _, shots = variant.partition(" K=")
    return int(size), int(shots)


def model(folder: Path, variant: str) -> FewShotSegmenter:
    return converted(folder, Released("hsnet", "hsnet", "resnet50", "pascal", parts(variant)[1], "freeze", 0), fill)


def inputs(size: int, shots: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, supports, their masks, and the query's mask."""
    rng = np.random.RandomState(7)
    x = rng.standard_normal((2, 3, size, size))
    sx = 0.5 * rng.standard_normal((2, 5, 3, size, size)) + 0.5 * x[:, None]
    masks = torch.zeros(2, 5, size, size, dtype=torch.uint8)
    for b in range(2):
        for k in range(5):
            masks[b, k, 20 + 5 * k : 90 + 7 * k, 30 + 10 * b : 110] = 1
    label = torch.zeros(2, size, size, dtype=torch.uint8)
    label[:, 30:100, 40:120] = 1
    items = 2 if size == 161 else 1
    given = torch.from_numpy(x), torch.from_numpy(sx)[:, :shots], masks[:, :shots], label
    return given[0][:items], given[1][:items], given[2][:items], given[3][:items]


def expected(variant: str) -> dict[str, Numbers]:
    size, shots = parts(variant)
    logits, learners, *stages = tables.of("hsnet")
    found: dict[str, Numbers] = {}
    for row in logits if shots == 1 else learners:
        name = row.get("K=1, S", row.get("shot", ""))
        if shots > 1 or name == f"logits {size}":
            found[name] = tables.numbers(row, "mean", "std", "A", "B", "C", "D")
    if shots == 1:
        for row in stages[0 if size == 161 else 1]:
            found[row["tensor"]] = tables.numbers(row, "mean", "std")
            found[f"shape {row['tensor']}"] = tuple(map(float, row["shape"].strip("()").split(",")))
        found["loss"] = (LOSS[variant],)
    else:
        found["votes"] = tuple(float(n) for row in VOTES for n in row)
    if variant in MASKS:
        found["mask"] = tuple(map(float, MASKS[variant]))
    if variant == "161 K=1":
        found |= {f"gradient {name}": (value,) for name, value in GRADIENTS.items()}
    return found


def measured(model: FewShotSegmenter, variant: str) -> dict[str, Numbers]:
    size, shots = parts(variant)
    query, supports, masks, label = inputs(size, shots)
    head = model.head
    assert isinstance(head, HSNet)
    found: dict[str, Numbers] = {}
    with torch.no_grad():
        features = model._features(query, supports, masks, {})
    if shots > 1:
        with torch.no_grad():
            merged = model.head_output(query, supports, masks)
        for k, shot in enumerate(merged.shots):
            found[f"learner shot {k}"] = (*moments(shot.logits), *(float(shot.logits[p]) for p in SHOTS))
        votes = torch.stack([up(shot.logits, size).argmax(dim=1) for shot in merged.shots]).sum(dim=0)
        found["votes"] = tuple(float((item == n).sum()) for item in votes for n in range(shots + 1))
        found["mask"] = tuple(float(item.sum()) for item in merged.logits.argmax(dim=1))
        return found
    head.train()
    listened = {f"hypercorr_sqz{s}": head.encoders[str(s)] for s in STAGES}
    listened |= {"hypercorr_mix43": head.joints["4to3"], "hypercorr_mix432": head.joints["3to2"]}
    decoders = {"hypercorr_encoded": head.decoder1, "hypercorr_decoded": head.decoder2}
    with listening(listened, decoders) as values:
        output = head(features)
        terms = head.loss(output, {"query": label})
        terms["total"].backward()
    head.eval()
    for name, stage in (("hypercorr_sqz4", 3), ("hypercorr_mix43", 2)):  # the sheet's are resized for the sum
        coarse, side = values[name], features.query_taps[stage][0].shape[-1]
        planes = up(coarse.permute(0, 4, 5, 1, 2, 3).flatten(0, 2), side)
        values[name] = planes.unflatten(0, (coarse.shape[0], *coarse.shape[4:])).permute(0, 3, 4, 5, 1, 2)
    for stage in STAGES:
        queries, others = features.query_taps[stage], [t[:, 0] for t in features.support_taps[stage]]
        masked = [t * up(support_mask(masks[:, 0], t.dtype), (t.shape[-2], t.shape[-1])) for t in others]
        first = {2: 0, 3: 4, 4: 10}[stage]
        for i, (q, s) in enumerate(zip(queries, masked, strict=True), first):
            values[f"query_tap{i}"], values[f"support_masked_tap{i}"] = q, s
        values[f"corr{stage}"] = correlation([normalised(q) for q in queries], [normalised(s) for s in masked])
    for name, value in values.items():
        found[name], found[f"shape {name}"] = moments(value), tuple(map(float, value.shape))
    logits = up(output.logits, size).detach()
    found[f"logits {size}"] = (*moments(logits), *(float(logits[p]) for p in LOGITS[size]))
    found["mask"] = tuple(float(item.sum()) for item in logits.argmax(dim=1))
    found["loss"] = (float(terms["total"].detach()),)
    assert all(p.grad is None for p in model.backbone.parameters())
    names = HSNet.releases[0].keys("resnet50").pairs
    for name, p in head.named_parameters():
        ours = f"head.{name}"
        theirs = next(t + ours.removeprefix(o) for t, o in names if ours.startswith(o))
        assert p.grad is not None
        found[f"gradient {theirs}"] = (float(p.grad.norm()),)
    return found


@contextmanager
def listening(outputs: Mapping[str, nn.Module], inputs: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect what some modules return, and what others are given."""
    heard: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        heard[name] = value.detach().clone()

    handles = [m.register_forward_hook(lambda _, __, out, n=n: keep(n, out)) for n, m in outputs.items()]
    handles += [m.register_forward_pre_hook(lambda _, given, n=n: keep(n, given[0])) for n, m in inputs.items()]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def moments(values: Tensor) -> Numbers:
    values = values.detach()
    return float(values.mean()), float(values.std(correction=0))
