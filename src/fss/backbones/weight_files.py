"""Records of the pretrained weight files. Imports no torch, so that ``fss doctor`` starts fast."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightRecord:
    """Source of a weight file and the input normalisation it expects.

    Attributes:
        file: name of the file.
        sha256_prefix: first digits of its SHA-256, checked after the download; empty if none is published.
        url: download address; None if the file is only on its author's shared drive.
        stem: stem of the network it belongs to; empty for VGG, which has only one.
        mean: per-channel mean of its input normalisation, in [0, 1].
        std: per-channel standard deviation of its input normalisation, in [0, 1].
    """

    file: str
    sha256_prefix: str
    url: str | None
    stem: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


_TORCHVISION = "https://download.pytorch.org/models/"


def _torchvision(name: str, digits: str, stem: str) -> WeightRecord:
    """Return the record of a torchvision file, whose name contains the first digits of its hash."""
    file = f"{name}-{digits}.pth"
    return WeightRecord(file, digits, _TORCHVISION + file, stem)


RECORDS: dict[tuple[str, str], WeightRecord] = {
    ("resnet18", "torchvision"): _torchvision("resnet18", "f37072fd", "torchvision"),
    ("resnet50", "torchvision"): _torchvision("resnet50", "0676ba61", "torchvision"),
    ("resnet50", "deep"): WeightRecord("resnet50_v2.pth", "", None, "deep"),
    ("resnet101", "torchvision"): _torchvision("resnet101", "63fe2227", "torchvision"),
    ("resnet101", "deep"): WeightRecord("resnet101_v2.pth", "", None, "deep"),
    ("resnet152", "torchvision"): _torchvision("resnet152", "394f9c45", "torchvision"),
    ("resnet152", "deep"): WeightRecord("resnet152_v2.pth", "", None, "deep"),
    ("vgg16", ""): _torchvision("vgg16_bn", "6c64b313", ""),
}


def weights_dir() -> Path:
    """Return the folder for downloaded weights: ``$FSS_WEIGHTS``, else ``weights`` in the working directory."""
    return Path(os.environ.get("FSS_WEIGHTS", "weights"))
