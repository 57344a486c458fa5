"""Convert a release's file to our checkpoint format, or the other way round, checking every key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fss.checkpoints.known_releases import release_of
from fss.checkpoints.release_guess import advice
from fss.checkpoints.release_models import CLASSES, differences, released_config
from fss.checkpoints.state_dicts import from_release, mismatches, ordered, to_release
from fss.config.identity import determining, identity
from fss.config.source import build_source
from fss.data.sources.folds import name_classes
from fss.errors import FssError, unreadable
from fss.files import CHECKPOINT_FORMAT, atomic
from fss.methods.releases import KeyMap, Release, Released
from fss.model.build import meta_model
from fss.model.checkpoint import Checkpoint, read_checkpoint
from fss.model.load import rebuild

_PREFIX = "module."
_NO_STATE = (
    "{} holds no state dict (a mapping from names to tensors), alone or as the entry state_dict. Give a .pth file of a "
    "release."
)


def convert_file(path: Path, released: Released, out: Path) -> str:
    """Convert a release's file.

    Args:
        path: its ``.pth`` file.
        released: the model it contains.
        out: checkpoint to write.

    Returns:
        What was written, in words.

    Raises:
        FssError: if the file cannot be read, or any key is unknown, missing or has another shape.
    """
    path, out = path.expanduser(), out.expanduser()
    config = released_config(released)
    table = _table(released)
    _apart(path, out)
    content = _read(path)
    state, prefix = _state(path, content)
    wrong = mismatches(state, released_shapes(config, released))
    if wrong:
        raise FssError("\n".join([f"{path} is not {_words(released)}.", *wrong, advice(state, released)]))
    try:
        tensors = from_release(state, table)
    except FssError as error:
        raise FssError(f"{path}: {error}. It was changed after it was saved: fetch it again.") from error
    with path.open("rb") as file:
        digits = hashlib.file_digest(file, "sha256").hexdigest()
    config["backbone"]["weights"] = f"{path.name}, SHA-256 {digits[:16]}"  # nothing else distinguishes two files
    card: dict[str, Any] = {"config": config, "determining": determining(config), "identity": identity(config)}
    card["format"] = CHECKPOINT_FORMAT
    source = build_source(config["data"])
    card["trained_on"] = list(name_classes(source.fold(released.fold).base, source.class_names).values())
    facts = {**asdict(released), "prefix": prefix, "epoch": _epoch(content), "order": list(state)}
    facts["unread"] = {k: v for k, v in state.items() if table.unused and k.startswith(table.unused)}
    _write(out, {"state_dict": {f"model.{k}": v for k, v in tensors.items()}, "fss": card, "fss_release": facts})
    return f"{_words(released)}, {len(state)} tensors of {path.name}"


def export(path: Path, out: Path, source: str | None, merge: bool) -> str:
    """Write one of our checkpoints as a release's file.

    Args:
        path: the checkpoint.
        out: file to write.
        source: the release; None: the one it was converted from.
        merge: merge factors into plain convolutions first.

    Returns:
        What was written, in words.

    Raises:
        FssError: if the release cannot hold the model, or would compute something else.
    """
    path, out = path.expanduser(), out.expanduser()
    _apart(path, out)
    checkpoint = read_checkpoint(path)
    facts = checkpoint.released if source in (None, checkpoint.released.get("source")) else {}
    source = source or facts.get("source")
    if source is None:
        raise FssError(f"{path} was trained here: say for which release it is written, e.g. --source svf")
    released = _released(checkpoint.config, source, merge)
    expected = released_config(released)
    table, differing = _table(released), differences(checkpoint.config, expected, released)
    if differing:
        raise FssError(f"{path} would compute something else there: {'; '.join(differing)}. Try another --source.")
    try:
        tensors = to_release(_merged(checkpoint) if merge else checkpoint.state, table)
    except FssError as error:
        raise FssError(f"{path} does not fit {_words(released)}: {error}. Try another --source.") from error
    tensors |= facts.get("unread", {}) or _unread(released)
    wrong = mismatches(tensors, released_shapes(expected, released))
    if wrong:
        hint = (
            "The release decomposes every stage and rounds ranks down to 4 (finetune.rank_rounding=4). --merge writes "
            "plain convolutions; another stem or width has no place there."
        )
        raise FssError("\n".join([f"{path} does not fit {_words(released)}.", *wrong, hint]))
    order = facts.get("order", [])
    order = order if set(order) == tensors.keys() else ordered(tensors, table)  # --merge changes the names
    prefix = facts.get("prefix", _release(released).prefix)
    tensors = {prefix + k: tensors[k] for k in order}
    wrapped = {"epoch": facts.get("epoch", 0), "state_dict": tensors}
    _write(out, wrapped if _release(released).wrapped else tensors)
    return f"{_words(released)}, {len(tensors)} tensors"


def released_shapes(config: dict[str, Any], released: Released) -> dict[str, tuple[int, ...]]:
    """List the tensors that the release's strict loading expects.

    Args:
        config: configuration of the released model.
        released: the released model.

    Returns:
        Release name -> shape, including tensors that it stores and never reads.
    """
    model, _ = meta_model(config, CLASSES[released.data])
    tensors = to_release(model.state_dict(), _table(released))
    return {**{k: tuple(v.shape) for k, v in tensors.items()}, **_release(released).unread(released)}


def _release(released: Released) -> Release:
    return release_of(released.source, released.method)


def _table(released: Released) -> KeyMap:
    return _release(released).keys(released.backbone)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FssError(f"There is no file {path}. Give a .pth file of a release.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and unsafe files raise many types
        raise FssError(
            f"{path} is no readable checkpoint: {unreadable(error)}. Only plain tensors are read; fetch it again, or "
            "save its state dict alone where you trust it."
        ) from error
    if not isinstance(content, Mapping):
        raise FssError(_NO_STATE.format(path))
    return content


def _apart(path: Path, out: Path) -> None:
    """Raise if the output would overwrite the input file."""
    if path.resolve() == out.resolve():
        raise FssError(f"--out {out} is the file to convert, which would be lost. Give another --out.")


def _state(path: Path, content: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Return the tensors without the prefix of parallel training, and that prefix."""
    nested = content.get("state_dict")
    state = nested if isinstance(nested, Mapping) else content
    if not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise FssError(_NO_STATE.format(path))
    prefix = _PREFIX if all(str(k).startswith(_PREFIX) for k in state) else ""
    return {str(k).removeprefix(prefix): v for k, v in state.items()}, prefix


def _epoch(content: Mapping[str, Any]) -> float:
    epoch = content.get("epoch", 0)
    return epoch if isinstance(epoch, int | float) else 0


def _words(released: Released) -> str:
    svf = " with SVF" if released.finetune == "svf" else ""
    where = f"{released.data} fold {released.fold}, {released.shot}-shot"
    return f"{released.source}'s {released.method}{svf} on {released.backbone}, {where}"


def _released(config: dict[str, Any], source: str, merge: bool) -> Released:
    node = {group: str(config[group]["name"]) for group in ("method", "backbone", "data", "finetune")}
    backbones = release_of(source, node["method"]).backbones
    if node["backbone"] not in backbones:
        raise FssError(
            f"The release {source} does not have the backbone {node['backbone']}: only models on "
            f"{', '.join(backbones)} can be written with --to-release."
        )
    data = node["data"] if node["data"] in CLASSES else "pascal"
    finetune = "svf" if node["finetune"] == "svf" and not merge else "freeze"
    return Released(source, node["method"], node["backbone"], data, config["shot"], finetune, config["fold"])


def _merged(checkpoint: Checkpoint) -> dict[str, Tensor]:
    model, strategy = rebuild(checkpoint)
    strategy.merge(model.backbone)
    return dict(model.state_dict())


def _unread(released: Released) -> dict[str, Tensor]:
    """Return zeros for tensors that the release's strict loading expects and never reads."""
    return {name: torch.zeros(shape) for name, shape in _release(released).unread(released).items()}


def _write(out: Path, content: dict[str, Any]) -> None:
    try:
        with atomic(out) as file:
            torch.save(content, file)
    except OSError as error:
        raise FssError(f"Cannot write {out}: {error.strerror or error}. Give another --out.") from error
