"""Atomic file writing and removal of what it leaves behind."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHECKPOINT_FORMAT = 2
"""Version of the content that checkpoints add to Lightning's own; files of another version are rejected."""


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file next to ``path`` and rename it to ``path`` if the block succeeds.

    Args:
        path: final path; its folder is created if needed.

    Yields:
        The open binary file.

    Raises:
        OSError: if the file cannot be written; ``path`` is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp creates files that only their owner can read
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # "no space left on device" carries no file name
        raise


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically.

    Args:
        path: the file.
        content: JSON-serialisable values.
    """
    with atomic(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that :func:`atomic` leaves when a process is killed while writing.

    Args:
        folder: searched recursively; no other process may be writing there.
    """
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def remove_empty(folder: Path) -> None:
    """Remove the folder of a run and its two parents, each only if it is empty.

    Args:
        folder: ``multirun/<group>/<run>``.
    """
    for path in (folder, *folder.parents[:2]):
        try:
            path.rmdir()
        except OSError:  # not empty, or gone
            return
