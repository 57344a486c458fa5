"""Steps shared by all data set preparations: request, lock, finding archives, beginning and finishing a root."""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fss.data.prepare.archives import Archive, Place, missing_error, on_disk, verify
from fss.data.prepare.downloads import Fetching, download
from fss.data.prepare.extraction import Pace
from fss.data.sources.manifest import Manifest, count_files, read_manifest, write_manifest
from fss.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        data: name of the data set.
        root: folder to fill.
        archives: folder of archives or unpacked folders, and of downloads; None: ROOT/archives.
        options: other settings that determine the files, e.g. the year and the mask rule.
        download: download what is missing.
        unverified: accept archives and lists other than the official ones.
        pace: processes and progress bars.
    """

    data: str
    root: Path
    archives: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    download: bool = False
    unverified: bool = False
    pace: Pace = field(default_factory=Pace)

    @property
    def folder(self) -> Path:
        """Folder in which archives are searched."""
        return self.root / "archives" if self.archives is None else self.archives

    def command(self) -> str:
        """Return the command that repeats this request."""
        parts = ["fss data prepare", self.data, "--root", shlex.quote(str(self.root))]
        if self.archives is not None:
            parts += ["--archives", shlex.quote(str(self.archives))]
        for name, value in self.options.items():
            parts += [f"--{name.replace('_', '-')}", str(value)]
        return " ".join([*parts, *(["--unverified"] if self.unverified else [])])


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Create a folder and lock it for this process; remove it at the end if it is empty.

    The lock is on the folder itself, so no lock file is left, and the system releases it even after ``kill -9``.

    Args:
        root: the folder.

    Yields:
        Nothing.

    Raises:
        DataError: if the folder cannot be created.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"Cannot write into {root}: {error.strerror or error}. Give another --root.") from error
    try:
        _wait_for(handle, root)
        yield
    finally:
        os.close(handle)
        with suppress(OSError):
            root.rmdir()  # fails unless it is empty


def find_places(request: Request, archives: Sequence[Archive]) -> list[Place]:
    """Find and verify archives, and download missing ones if requested.

    Args:
        request: what the user asked for.
        archives: the records.

    Returns:
        One location per record.

    Raises:
        DataError: if some are missing (the message names all of them) or not the official ones.
    """
    found = {a: on_disk(a, request.folder) for a in archives}
    missing = [a for a, path in found.items() if path is None]
    if missing and not request.download:
        raise missing_error(missing, request.folder, request.command())
    again = request.command() + " --download"
    progress = request.pace.progress
    places = {a: verify(a, p, request.unverified, again, progress) for a, p in found.items() if p is not None}
    fetched = download(missing, Fetching(request.folder, again, request.unverified, progress)) if missing else []
    places |= {place.archive: place for place in fetched}
    for place in places.values():
        if place.kind != "folder" and not place.verified:
            log.warning("%s is not the official file (MD5 %s); --unverified accepts it", place.path, place.md5)
    return [places[a] for a in archives]


def begin(
    request: Request, places: Sequence[Place], official: bool, made: Sequence[str], copied: Mapping[str, Place]
) -> Manifest:
    """Mark a root as begun, or check that this run continues the same preparation.

    Args:
        request: what the user asked for.
        places: locations of the archives.
        official: whether the content read so far matches the official archives.
        made: folders below the root that only this program fills.
        copied: folder below the root -> archive copied into it; the folder may be that unpacked archive itself.

    Returns:
        The first part of the manifest.

    Raises:
        DataError: if the root holds files of unknown origin, or was begun from other archives.
    """
    state: Manifest = {
        "data": request.data,
        **request.options,
        "source": _source(places, official),
        "archives": [place.record() for place in places],
    }
    existing = read_manifest(request.root)
    if existing is None:
        foreign = [name for name in made if count_files(request.root / name)]
        for name, place in copied.items():
            folder, source = (request.root / name).resolve(), place.path.resolve()
            if count_files(folder) and folder not in (source, source / name):
                foreign.append(name)
        if foreign:
            raise DataError(
                f"{request.root / foreign[0]} holds files that fss data prepare did not write. Choose another --root, "
                "or move that folder away. (A finished data set can be used as it is with data.root.)"
            )
    elif existing["archives"] != state["archives"]:
        raise DataError(
            f"{request.root} was begun from other archives ({_names(existing['archives'])}) than those in "
            f"{request.folder} ({_names(state['archives'])}). Give the same ones, or begin anew: "
            f"rm -r {shlex.quote(str(request.root))} && {request.command()}"
        )
    write_manifest(request.root, {**state, "complete": False})
    return state


def finish(root: Path, state: Manifest, facts: Manifest, folders: dict[str, int]) -> Manifest:
    """Write the manifest of a complete root.

    Args:
        root: the folder.
        state: from :func:`begin`.
        facts: counts, list hashes, notes.
        folders: folder below the root -> expected number of files.

    Returns:
        The whole manifest.
    """
    for folder in ("", *folders):
        sweep(root / folder)
    manifest = {**state, **facts, "folders": folders, "complete": True}
    write_manifest(root, manifest)
    return manifest


def sweep(folder: Path) -> None:
    """Delete the temporary files of killed processes.

    Args:
        folder: folder that is written to; it need not exist.
    """
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _wait_for(handle: int, root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("another process is preparing %s; waiting for it", root)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:  # some network file systems cannot lock folders; file writes are atomic anyway
        log.debug("no lock on %s: %s", root, error)


def _source(places: Sequence[Place], official: bool) -> str:
    if not official or any(p.kind != "folder" and not p.verified for p in places):
        return "unverified"
    return "verified" if all(p.verified for p in places) else "unpacked"


def _names(records: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{r['name']} {'unpacked' if r.get('unpacked') else r['md5'][:8]}" for r in records)
