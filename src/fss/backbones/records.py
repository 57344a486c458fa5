"""Where pretrained weights come from. Imports no torch, so that ``fss doctor`` answers at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightRecord:
    """Where a weight file comes from and what it expects.

    Attributes:
        file: name of the file.
        sha256_prefix: first digits of its SHA-256, checked after the download; empty if none is published.
        url: where it is downloaded from; None where only its author's shared drive has it.
        stem: stem of the network it belongs to.
        mean: per-channel mean its inputs were normalised with, in [0, 1].
        std: per-channel standard deviation, likewise.
    """

    file: str
    sha256_prefix: str
    url: str | None
    stem: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


_TORCHVISION = "https://download.pytorch.org/models/"
RECORDS: dict[tuple[str, str], WeightRecord] = {
    ("resnet18", "torchvision"): WeightRecord(
        "resnet18-f37072fd.pth", "f37072fd", _TORCHVISION + "resnet18-f37072fd.pth", "torchvision"
    ),
    ("resnet50", "torchvision"): WeightRecord(
        "resnet50-0676ba61.pth", "0676ba61", _TORCHVISION + "resnet50-0676ba61.pth", "torchvision"
    ),
    ("resnet50", "deep"): WeightRecord("resnet50_v2.pth", "", None, "deep"),
}


def weights_dir() -> Path:
    """Return the folder of downloaded weights: ``$FSS_WEIGHTS``, else ``weights`` in the working directory."""
    return Path(os.environ.get("FSS_WEIGHTS", "weights"))
