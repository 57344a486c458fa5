"""Files of the releases with deterministic weights, and what converted models give for deterministic inputs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tests.golden.vectors import Digest
from torch import Tensor

import fss
from fss.checkpoints.release_files import convert_file, released_shapes
from fss.checkpoints.release_models import released_config
from fss.methods.releases import Released
from fss.model.build import empty_model
from fss.model.checkpoint import read_checkpoint
from fss.model.multiclass_segmenter import MulticlassSegmenter
from fss.model.segmenter import FewShotSegmenter
from fss.nn.resize import up

SIZE = 161
CLASSES = 16
BASE_INDEX = torch.tensor([3, 7])
"""Position of each episode's class among the base classes."""
TERMS = {"baseline": ("main",), "pfenet": ("main", "aux"), "bam": ("main", "meta", "base")}
"""Losses in the order of the vectors."""


def filled(shapes: Mapping[str, Sequence[int]], gain: float = 1.0) -> dict[str, Tensor]:
    """Fill every released key: crc32 of the key seeds the draw, the kind of tensor sets the scale.

    The gain of kernels is 1 for models on ResNet and 2 on VGG; the left factor of a decomposition has 1 always.
    """
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(tuple(shape), dtype=torch.long)
            continue
        z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(shape))
        if key.endswith("vector_S"):
            value = 1 + 0.1 * z
        elif z.ndim == 4:
            value = z * np.sqrt((1.0 if ".conv_U." in key else gain) / np.prod(shape[1:]))
        elif key.endswith("running_var"):
            value = 1 + 0.2 * np.abs(z)
        elif key.endswith("running_mean"):
            value = 0.1 * z
        else:
            value = 1 + 0.1 * z if key.endswith(".weight") else 0.1 * z
        state[key] = torch.from_numpy(np.asarray(value))
    return state


def weights(released: Released) -> dict[str, Tensor]:
    """Return the tensors of a release's file; what it stores under two names has one value."""
    state = filled(released_shapes(released_config(released), released), 2.0 if released.backbone == "vgg16" else 1.0)
    for key in state:
        if key.startswith("encoder."):
            state[key] = state[f"layer{key.removeprefix('encoder.')}"]
        elif released.finetune == "freeze" and key[:5] == "layer" and key[6:8] == "p.":
            state[key] = state[key[:6] + key[7:]]
    return state


def write(folder: Path, released: Released, prefix: str = "") -> dict[str, Tensor]:
    """Write release.pth as a release saves it; return its tensors."""
    state = weights(released)
    content = {"epoch": 7, "state_dict": {prefix + k: v for k, v in state.items()}, "optimizer": {"param_groups": []}}
    torch.save(content, folder / "release.pth")
    return state


def converted(folder: Path, released: Released, prefix: str = "") -> FewShotSegmenter | MulticlassSegmenter:
    """Write a release's file, convert it, load it in float64, and delete the files, which are large."""
    source, ours = folder / "release.pth", folder / "ours.ckpt"
    write(folder, released, prefix)
    try:
        convert_file(source, released, ours)
        return loaded(ours, released)
    finally:
        source.unlink(missing_ok=True)
        ours.unlink(missing_ok=True)


def loaded(path: Path, released: Released) -> FewShotSegmenter | MulticlassSegmenter:
    """Load a converted file in float64: with fss.load, but for base learners, which segment no new classes."""
    if released.method != "base_learner":
        return fss.load(path, dtype=torch.float64)
    checkpoint = read_checkpoint(path)
    model, _ = empty_model(checkpoint.config, torch.float64, CLASSES)
    model.load_state_dict(checkpoint.state, strict=True)
    assert isinstance(model, MulticlassSegmenter)
    return model.eval()


@torch.no_grad()
def measure(model: FewShotSegmenter | MulticlassSegmenter, released: Released) -> tuple[dict[str, Digest], Digest]:
    """Return the digests of a model's outputs for the vectors' inputs, and its losses in the vectors' order."""
    given = inputs(released.shot)
    if isinstance(model, MulticlassSegmenter):
        return {"final": digest(model(given.query))}, ()
    episode = (given.query, given.supports, given.support_labels)
    output = model.head_output(*episode)
    maps = {"final": output.logits, **output.branch_logits}
    if released.method == "bam":  # losses leave the episode's own class out; dropout stays in evaluation mode
        model.head.training = True
        output = model.head_output(*episode, extras={"base_index": BASE_INDEX})
        model.head.training = False
    terms = model.head.loss(output, {"query": given.query_label, "base": given.base_label})
    terms["aux"] = sum((terms[f"aux{i}"] for i in range(1, 5) if f"aux{i}" in terms), terms["main"] * 0) / 4
    names = TERMS[released.method]
    torch.testing.assert_close(terms["total"], sum(terms[n] for n in names), rtol=1e-12, atol=0)
    return {name: digest(up(m, SIZE)) for name, m in maps.items()}, tuple(float(terms[n]) for n in names)


@dataclass
class Inputs:
    query: Tensor
    supports: Tensor
    support_labels: Tensor
    query_label: Tensor
    base_label: Tensor


def inputs(shots: int) -> Inputs:
    rng = np.random.RandomState(7)
    x = rng.standard_normal((2, 3, SIZE, SIZE))
    sx = 0.5 * rng.standard_normal((2, 5, 3, SIZE, SIZE)) + 0.5 * x[:, None]
    base = rng.randint(0, CLASSES, (2, SIZE, SIZE))
    sy = np.zeros((2, 5, SIZE, SIZE))
    for b in range(2):
        for k in range(5):
            sy[b, k, 20 + 5 * k : 90 + 7 * k, 30 + 10 * b : 110] = 1
            sy[b, k, :4] = 255
    y = np.zeros((2, SIZE, SIZE))
    y[:, 30:100, 40:120] = 1
    y[:, :3] = 255
    return Inputs(*(torch.from_numpy(v) for v in (x, sx[:, :shots], sy[:, :shots], y, base)))


def digest(out: Tensor) -> Digest:
    """Mean, population standard deviation and four chosen values, as the vectors print them."""
    values = [out.mean(), out.std(unbiased=False)]
    values += [out[0, 0, 0, 0], out[0, 1, 80, 80], out[1, 0, 37, 120], out[1, 1, 160, 5]]
    return tuple(float(v) for v in values)


def deviation(found: Sequence[float], expected: Sequence[float]) -> float:
    """Return the largest relative deviation of any number."""
    return max((abs(f - e) / abs(e) for f, e in zip(found, expected, strict=True)), default=0.0)
