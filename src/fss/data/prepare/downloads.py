"""Download official archives: resumable, and hashed on the fly."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.progress import Progress

from fss.data.prepare.archives import Archive, Place, transfer_bar
from fss.errors import DataError

_CHUNK = 1 << 18
_SPARE = 1 << 28  # bytes left free on the disk
_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Fetching:
    """How archives are downloaded.

    Attributes:
        folder: receives ``NAME.part``, renamed to ``NAME`` once complete and verified.
        again: command with which the user repeats the download.
        unverified: accept another size or MD5 than the pinned one.
        progress: show a progress bar.
        attempts: maximum consecutive connections without progress.
        pause: seconds before the first retry, doubled for each further one.
    """

    folder: Path
    again: str
    unverified: bool = False
    progress: bool = True
    attempts: int = 6
    pause: float = 1.0


def download(archives: Sequence[Archive], how: Fetching) -> list[Place]:
    """Download archives one after the other.

    Args:
        archives: archives to download.
        how: target folder and retries.

    Returns:
        Their locations.

    Raises:
        DataError: if the disk is too small, the server refuses, or a file is not the pinned one.
    """
    try:
        how.folder.mkdir(parents=True, exist_ok=True)
        _check_room(archives, how)
        return [_Download(archive, how).fetch() for archive in archives]
    except OSError as error:
        raise DataError(
            f"Cannot write into {how.folder}: {error.strerror or error}. Give a folder that is writable and has room "
            "with --archives DIR."
        ) from error


class _LostError(Exception):
    """The transfer stopped; another connection may continue it."""


class _Download:
    """The download of one archive."""

    def __init__(self, archive: Archive, how: Fetching) -> None:
        self.archive, self.how = archive, how
        self.part = how.folder / f"{archive.name}.part"
        self.have = 0
        self.md5: Any = None

    def fetch(self) -> Place:
        """Download, verify and rename the file; an empty part file is removed."""
        try:
            return self._run()
        finally:
            if self.part.is_file() and not self.part.stat().st_size:
                self.part.unlink()

    def _run(self) -> Place:
        archive, how = self.archive, self.how
        if self._size_of_part() > archive.size:
            self.part.unlink()
        with transfer_bar(archive.name, archive.size, how.progress) as bar, self.part.open("ab+") as file:
            self._lock(file)
            self._hash_part(file)
            failures = 0
            while self.have != archive.size:
                before = self.have
                try:
                    self._connect(file, bar)
                    break  # the server has sent all it has
                except _LostError as error:
                    failures = 0 if self.have > before else failures + 1
                    if failures >= how.attempts:
                        raise DataError(
                            f"The download of {archive.url} stopped {failures} times without a byte ({error}). "
                            f"{self.have:,} of {archive.size:,} bytes are kept; continue with: {how.again}"
                        ) from error
                    time.sleep(how.pause * 2 ** max(0, failures - 1))
            file.flush()
            os.fsync(file.fileno())
        return self._accept()

    def _lock(self, file: IO[bytes]) -> None:
        """Keep other processes from writing the same part file; the lock is released when the file is closed."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"Another process is fetching {self.part}. Wait for it, then: {self.how.again}") from error

    def _size_of_part(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _hash_part(self, file: IO[bytes]) -> None:
        """Hash the bytes left by an earlier attempt."""
        self.md5, self.have = hashlib.md5(usedforsecurity=False), 0
        file.seek(0)
        while chunk := file.read(_CHUNK):
            self.md5.update(chunk)
            self.have += len(chunk)

    def _connect(self, file: IO[bytes], bar: Progress) -> None:
        """Transfer over one connection until it ends, continuing after the bytes already there."""
        headers = {"User-Agent": "fss", "Accept-Encoding": "identity"}
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
        request = urllib.request.Request(self.archive.url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                self._check_answer(answer, file)
                bar.update(bar.task_ids[0], completed=self.have)
                self._receive(answer, file, bar)
        except urllib.error.HTTPError as error:
            self._refused(error, file)
        except urllib.error.URLError as error:
            raise _LostError(str(error.reason)) from error
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            raise _LostError(str(error) or type(error).__name__) from error

    def _check_answer(self, answer: Any, file: IO[bytes]) -> None:
        """Restart if the server ignores the range, and reject a file of another size before downloading it."""
        content_range = answer.headers.get("Content-Range", "")
        if self.have and (answer.status != 206 or not content_range.startswith(f"bytes {self.have}-")):
            if answer.status == 206:
                self._restart(file)
                raise _LostError(f"the server answered with the range {content_range!r}")
            self._restart(file)
        length = answer.headers.get("Content-Length")
        offered = None if length is None else self.have + int(length)
        if offered not in (None, self.archive.size) and not self.how.unverified:
            raise DataError(
                f"{self.archive.url} offers {offered:,} bytes, but {self.archive.name} is pinned at "
                f"{self.archive.size:,}: it is another file. Nothing was fetched. Get the official file elsewhere and "
                "give its folder with --archives DIR; --unverified accepts another file."
            )

    def _restart(self, file: IO[bytes]) -> None:
        file.truncate(0)
        self.md5, self.have = hashlib.md5(usedforsecurity=False), 0

    def _receive(self, answer: Any, file: IO[bytes], bar: Progress) -> None:
        length = answer.headers.get("Content-Length")
        expected = None if length is None else self.have + int(length)
        most = max(self.archive.size, expected or 0)
        while chunk := answer.read1(_CHUNK):
            self.have += len(chunk)
            if self.have > most:
                self._restart(file)
                raise _LostError(f"the server sent more than {most:,} bytes")
            file.write(chunk)
            self.md5.update(chunk)
            bar.advance(bar.task_ids[0], len(chunk))
        if expected is not None and self.have < expected:
            raise _LostError(f"the connection closed after {self.have:,} bytes")

    def _refused(self, error: urllib.error.HTTPError, file: IO[bytes]) -> None:
        """Raise an error that allows a retry if one can help, else a final error."""
        if error.code == 416 and self.have:  # the part file no longer fits the remote file
            self._restart(file)
            raise _LostError("the server refused to continue") from error
        if error.code >= 500 or error.code in (408, 429):
            raise _LostError(f"HTTP status {error.code}") from error
        raise DataError(
            f"{self.archive.url} cannot be fetched: HTTP status {error.code} {error.reason}. Get "
            f"{self.archive.name} ({self.archive.size:,} bytes, MD5 {self.archive.md5}) elsewhere, put it into "
            f"{self.how.folder} and repeat the command."
        ) from error

    def _accept(self) -> Place:
        archive, how = self.archive, self.how
        digest = self.md5.hexdigest()
        if digest != archive.md5 and not how.unverified:
            self.part.unlink()
            raise DataError(
                f"What {archive.url} sent is not the official {archive.name}: {self.have:,} bytes with MD5 {digest} "
                f"instead of {archive.size:,} with {archive.md5}. It was deleted. Try again later with: {how.again}"
            )
        target = how.folder / archive.name
        self.part.replace(target)
        return Place(archive, target, digest, how.again)


def _check_room(archives: Sequence[Archive], how: Fetching) -> None:
    parts = (how.folder / f"{a.name}.part" for a in archives)
    present = sum(p.stat().st_size for p in parts if p.is_file())
    needed = sum(a.size for a in archives) - present + _SPARE
    free = shutil.disk_usage(how.folder).free
    if free < needed:
        raise DataError(
            f"The disk of {how.folder} has {free / 1e9:.1f} GB free, but the archives need {needed / 1e9:.1f} GB "
            f"({', '.join(a.name for a in archives)}). Make room, or choose another disk with --archives DIR."
        )
