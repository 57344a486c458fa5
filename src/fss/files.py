"""Files that are either complete or absent."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` and rename it there if the block succeeds.

    Args:
        path: final name; its folder is made if needed.

    Yields:
        The open binary file.

    Raises:
        OSError: if the folder cannot be written; ``path`` is unchanged then.
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
        os.chmod(name, 0o666 & ~mask)  # mkstemp makes private files
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # on a full disk the system names no file
        raise


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically.

    Args:
        path: the file.
        content: plain values.
    """
    with atomic(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Remove what :func:`atomic` leaves where a process was killed while writing.

    Args:
        folder: looked through with its sub-folders; nobody may be writing there.
    """
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def remove_empty(folder: Path) -> None:
    """Remove the folder of a run, and the two above it, as far as they are empty.

    Args:
        folder: ``multirun/<group>/<run>``.
    """
    for place in (folder, *folder.parents[:2]):
        try:
            place.rmdir()
        except OSError:  # not empty, or gone
            return
