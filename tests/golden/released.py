"""Deterministic weights and inputs of the released models' test vectors, by the rule the vectors were made with."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import fss
from fss.backbones.resnet import ResNet
from fss.backbones.vgg import VGG
from fss.checkpoints.convert import from_release, to_release
from fss.checkpoints.keymaps import KEYMAPS
from fss.cli.conventions import Released, released_config
from fss.cli.conversion import convert_file, released_shapes
from fss.methods.baseline import Baseline
from fss.methods.segmenter import FewShotSegmenter
from fss.nn.resize import up


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


def fill(model: nn.Module, method: str) -> dict[str, Tensor]:
    """Load released-style weights into a model of ours through the key table; return them under released names."""
    table = KEYMAPS["svf", method]
    shapes = {k: v.shape for k, v in to_release(model.state_dict(), table).items()}
    released = filled(shapes, 2.0 if len(model.backbone.layer4) == 9 else 1.0)  # type: ignore[arg-type]  # VGG has 9
    model.load_state_dict(from_release(released, table), strict=True)
    return released


def written(folder: Path, released: Released, prefix: str = "") -> dict[str, Tensor]:
    """Write a file as a release saves it, with the vectors' weights, to release.pth; return its tensors."""
    shapes = released_shapes(released_config(released), released)
    state = filled(shapes, 2.0 if released.backbone == "vgg16" else 1.0)
    content = {"epoch": 7, "state_dict": {prefix + k: v for k, v in state.items()}, "optimizer": {"param_groups": []}}
    torch.save(content, folder / "release.pth")
    return state


def converted(folder: Path, released: Released, prefix: str = "") -> tuple[FewShotSegmenter, dict[str, Tensor]]:
    """Write a release's file, convert it, and load it in float64; return the model and the file's tensors."""
    state = written(folder, released, prefix)
    convert_file(folder / "release.pth", released, folder / "ours.ckpt")
    return fss.load(folder / "ours.ckpt", dtype=torch.float64), state


def run(model: FewShotSegmenter, shots: int) -> tuple[list[float], dict[str, float]]:
    """Return the digest of a model's output for the vectors' inputs, and its losses."""
    given = inputs(shots)
    with torch.no_grad():
        output = model.head_output(given.query, given.supports, given.support_labels)
        losses = model.head.loss(output, {"query": given.query_label})
    return digest(up(output.logits, (161, 161))), {k: float(v) for k, v in losses.items()}


def baseline(dilation: str = "torchvision", vgg: bool = False) -> FewShotSegmenter:
    backbone = VGG() if vgg else ResNet(50, "deep", dilation)  # type: ignore[arg-type]
    backbone.norm_mode = "eval"
    return FewShotSegmenter(backbone, Baseline(backbone.channels, shot_aggregation="sum")).double().eval()


@dataclass
class Inputs:
    query: Tensor
    supports: Tensor
    support_labels: Tensor
    query_label: Tensor


def inputs(shots: int) -> Inputs:
    rng = np.random.RandomState(7)
    x = rng.standard_normal((2, 3, 161, 161))
    sx = 0.5 * rng.standard_normal((2, 5, 3, 161, 161)) + 0.5 * x[:, None]
    sy = np.zeros((2, 5, 161, 161))
    for b in range(2):
        for k in range(5):
            sy[b, k, 20 + 5 * k : 90 + 7 * k, 30 + 10 * b : 110] = 1
            sy[b, k, :4] = 255
    y = np.zeros((2, 161, 161))
    y[:, 30:100, 40:120] = 1
    y[:, :3] = 255
    return Inputs(
        torch.from_numpy(x), torch.from_numpy(sx[:, :shots]), torch.from_numpy(sy[:, :shots]), torch.from_numpy(y)
    )


def digest(out: Tensor) -> list[float]:
    """Mean, population standard deviation and four chosen values, as the vectors print them."""
    values = [out.mean(), out.std(unbiased=False)]
    values += [out[0, 0, 0, 0], out[0, 1, 80, 80], out[1, 0, 37, 120], out[1, 1, 160, 5]]
    return [float(v) for v in values]
