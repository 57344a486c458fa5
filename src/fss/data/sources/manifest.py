"""The manifest ``ROOT/fss.json``: what ``fss data prepare`` wrote, and from what. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeGuard

from fss.errors import DataError
from fss.files import write_json

NAME = "fss.json"
_FORMAT = 1

Manifest = dict[str, Any]


def read_manifest(root: Path) -> Manifest | None:
    """Read the manifest of a root.

    Args:
        root: folder of a data set.

    Returns:
        The manifest, or None if there is none, as in a data set made elsewhere.

    Raises:
        DataError: if it is damaged or of another format version.
    """
    path = root / NAME
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    if not _is_manifest(content):
        raise _unusable(path, f"it is no manifest of format {_FORMAT}")
    return content


def write_manifest(root: Path, content: Manifest) -> None:
    """Write the manifest atomically, with the version of this package.

    Args:
        root: folder of the data set.
        content: everything but format and version.

    Raises:
        DataError: if the folder cannot be written.
    """
    try:
        write_json(root / NAME, {"format": _FORMAT, "fss": _version(), **content})
    except OSError as error:
        raise DataError(f"Cannot write {root / NAME}: {error.strerror or error}. Give a writable --root.") from error


def finished(root: Path, options: dict[str, Any]) -> Manifest | None:
    """Return the manifest of a root that already holds the requested data set.

    Args:
        root: folder of a data set.
        options: ``data`` and other settings that must agree, e.g. ``year`` and ``mask_rule``.

    Returns:
        Its manifest, or None if something is left to do.

    Raises:
        DataError: if the root holds another data set or one made by other rules.
    """
    manifest = read_manifest(root)
    if manifest is None:
        return None
    for name, asked in options.items():
        if manifest.get(name) != asked:
            raise DataError(
                f"{root} holds {manifest['data']} prepared with {name}={manifest.get(name)}, but {asked} was asked. "
                f"Choose another --root, or delete the old one first: rm -r {shlex.quote(str(root))}"
            )
    if not manifest.get("complete"):
        return None
    present = all(count_files(root / folder) >= count for folder, count in manifest["folders"].items())
    return manifest if present else None


def check_complete(root: Path) -> Manifest | None:
    """Read the manifest of a root that is about to be used.

    Args:
        root: folder of a data set.

    Returns:
        The manifest, or None if there is none.

    Raises:
        DataError: if the preparation was interrupted.
    """
    manifest = read_manifest(root)
    if manifest is not None and not manifest.get("complete"):
        raise DataError(
            f"Preparing {root} was interrupted. Continue with: fss data prepare {manifest['data']} --root "
            f"{shlex.quote(str(root))} and the options given then (--archives DIR or --download)"
        )
    return manifest


def list_hash(ids: Iterable[str]) -> str:
    """Return the SHA-256 of image ids joined by newlines.

    Args:
        ids: in list order.
    """
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def count_files(folder: Path) -> int:
    """Count the visible entries of a folder; 0 if it does not exist.

    Args:
        folder: the folder.
    """
    try:
        return sum(not name.startswith(".") for name in os.listdir(folder))
    except OSError:
        return 0


def manifest_facts(known: Manifest | None) -> dict[str, str | int]:
    """Return what a result file records of a manifest.

    Args:
        known: the manifest, or None.

    Returns:
        ``manifest``: verified (official archives, by MD5), unpacked (from unpacked folders), unverified, or absent.
    """
    return {"manifest": "absent" if known is None else str(known.get("source", "unverified"))}


def _is_manifest(content: Any) -> TypeGuard[Manifest]:
    if not isinstance(content, dict) or content.get("format") != _FORMAT or "data" not in content:
        return False
    whole = {"archives": list, **({"folders": dict, "counts": dict} if content.get("complete") else {})}
    return all(isinstance(content.get(name), kind) for name, kind in whole.items())


def _version() -> str:
    try:
        return version("fss")
    except PackageNotFoundError:
        return "unknown"


def _unusable(path: Path, why: str) -> DataError:
    return DataError(
        f"Cannot read {path}: {why}. Delete it; the data set then counts as made elsewhere, or prepare it anew with "
        "fss data prepare into an empty --root."
    )
