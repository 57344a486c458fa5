"""The cache folder of derived files, atomic writing, and fingerprints of file contents."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fss.errors import DataError
from fss.files import atomic

_WITH_CLASS = re.compile(r"__\d+$")
THREADS = max(2, min(16, os.cpu_count() or 2))
"""Threads for reading many small files; decoding and hashing release the interpreter lock."""


def cache_dir(*parts: str) -> Path:
    """Return a folder for derived files: ``$FSS_CACHE``, else ``~/.cache/fss``, followed by ``parts``.

    Args:
        parts: names of sub-folders.
    """
    base = os.environ.get("FSS_CACHE")
    root = Path(base).expanduser() if base else Path.home() / ".cache" / "fss"
    return root.joinpath(*parts)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file atomically.

    Args:
        path: file to write; its folder is created if needed.
        content: bytes, or text to store as UTF-8.

    Raises:
        DataError: if the folder cannot be written to.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with atomic(path) as file:
            file.write(data)
    except OSError as error:
        raise DataError(
            f"Cannot write {path}: {error.strerror or error}. Give a folder that is writable and has room "
            "(derived files go to $FSS_CACHE, by default ~/.cache/fss)."
        ) from error


def fingerprint(files: Sequence[Path]) -> str:
    """Return a hash of the names and contents of files, the same for a copy of them elsewhere.

    The hash is cached by path, size and times, so that the contents are read again only after a change.

    Args:
        files: files in a fixed order.

    Raises:
        DataError: if files are missing or unreadable.
    """
    memo = cache_dir("fingerprints", _stat_key(files))
    cached = _read_digest(memo)
    if cached is not None:
        return cached
    total = hashlib.sha256()
    with ThreadPoolExecutor(THREADS) as pool:
        for file, digest in zip(files, pool.map(_digest, files), strict=True):
            total.update(file.name.encode() + b"\0" + digest)
    write_atomic(memo, total.hexdigest())
    return total.hexdigest()


def content_hash(file: Path) -> str:
    """Return the SHA-256 of a file's content, cached by path, size and times.

    Args:
        file: the file.

    Raises:
        DataError: if it is missing or unreadable.
    """
    memo = cache_dir("hashes", _stat_key([file]))
    digest = _read_digest(memo)
    if digest is None:
        digest = _digest(file).hex()
        write_atomic(memo, digest)
    return digest


def missing_files_error(missing: Sequence[Path], total: int, what: str) -> DataError:
    """Return the error for missing files.

    Args:
        missing: the missing paths, at least one.
        total: number of files looked for.
        what: kind of file, for example "masks".
    """
    if _WITH_CLASS.search(missing[0].stem):
        return DataError(
            f"{len(missing)} of {total} {what} are missing, first {missing[0]}. Names like ID__CLASS are those of "
            "HSNet's lists. Give the ids alone, each once: the masks say which classes an image shows. For example: "
            "sed 's/__.*//' old.txt | sort -u > new.txt"
        )
    return DataError(
        f"{len(missing)} of {total} {what} are missing, first {missing[0]}. Complete the data set, or give an id "
        "list that names only images that are there."
    )


def _stat_key(files: Iterable[Path]) -> str:
    key = hashlib.sha256()
    missing: list[Path] = []
    total = 0
    for total, file in enumerate(files, start=1):  # noqa: B007
        try:
            stat = os.stat(file)
        except FileNotFoundError:
            missing.append(file)
        except OSError as error:
            raise DataError(f"Cannot read {file}: {error.strerror or error}. Check its permissions.") from error
        else:
            key.update(f"{os.path.abspath(file)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode())
    if missing:
        raise missing_files_error(missing, total, "files")
    return key.hexdigest()


def _digest(file: Path) -> bytes:
    try:
        with open(file, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").digest()
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror or error}. Check its permissions.") from error


def _read_digest(memo: Path) -> str | None:
    """Read a cached SHA-256; None if there is none or it is damaged."""
    try:
        digest = memo.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return digest if len(digest) == 64 and set(digest) <= set("0123456789abcdef") else None
