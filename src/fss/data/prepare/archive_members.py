"""Read individual members of untrusted archives, in archive order.

Nothing is ever written under a name taken from an archive: callers ask for names and receive bytes.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

from fss.data.prepare.archives import Place
from fss.errors import DataError

Content = bytes | Path
"""A member's bytes, or its file if the archive is unpacked."""

_MOST_MEMBERS = 400_000
_RATIO, _FLOOR = 20, 1 << 28  # unpacked size: at most 20 times the archive's; the official ones stay below 5
_LONGEST_READ = 1 << 26  # a forged tar header can request any number of bytes
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # also NotImplementedError: encryption or unsupported compression
    OverflowError,
)


def read_members(place: Place, wanted: Collection[str], limit: int) -> Iterator[tuple[str, Content]]:
    """Yield the wanted members of an archive.

    Args:
        place: the archive or unpacked folder.
        wanted: names below the archive's prefix.
        limit: maximum bytes per member.

    Yields:
        Name and content.

    Raises:
        DataError: if a member is missing, too large, a link or duplicated; if the archive is damaged, would unpack to
            more than twenty times its size or (unless it is the official one) has names that lead outside.
    """
    wanted = frozenset(wanted)
    readers: dict[str, Callable[[], Iterator[tuple[str, Content]]]] = {
        "folder": lambda: _from_folder(place, wanted, limit),
        "tar": lambda: _from_tar(place, wanted, limit),
        "zip": lambda: _from_zip(place, wanted, limit),
    }
    remaining = set(wanted)
    if not wanted:
        return
    members = readers[place.kind]()
    while True:
        try:
            name, content = next(members)
        except StopIteration:
            break
        except DataError:
            raise
        except _BROKEN as error:
            raise place.damaged(str(error) or type(error).__name__) from error
        remaining.remove(name)
        yield name, content
        if not remaining and place.verified:
            return  # the rest of an official archive needs no checks
    if remaining:
        raise place.damaged(f"it lacks {len(remaining)} of {len(wanted)} files, first {min(remaining)}")


def read_all(place: Place, wanted: Collection[str], limit: int) -> dict[str, bytes]:
    """Return all wanted members at once; raises as :func:`read_members`.

    Args:
        place: the archive or unpacked folder.
        wanted: names below the archive's prefix.
        limit: maximum bytes per member.

    Returns:
        Name -> bytes.
    """
    return {name: content_bytes(content) for name, content in read_members(place, wanted, limit)}


def content_bytes(content: Content) -> bytes:
    """Return a member's bytes.

    Args:
        content: as yielded by :func:`read_members`.

    Raises:
        DataError: if its file cannot be read.
    """
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {content}: {error.strerror or error}. Check its permissions.") from error


class _Bounded(io.RawIOBase):
    """A stream that raises when more is read than allowed, against decompression bombs."""

    def __init__(self, file: IO[bytes], total: int) -> None:
        self._file = file
        self._total = total

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ or self._file.tell() + size > self._total:
            raise OSError(f"it unpacks to more than {self._total:,} bytes, or a header asks for {size:,} at once")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence or offset > self._total:
            raise OSError(f"it unpacks to more than {self._total:,} bytes")
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


class _Names:
    """Checks the names of an archive's members and selects the wanted ones."""

    def __init__(self, place: Place, wanted: Collection[str], limit: int) -> None:
        self.place, self.wanted, self.limit = place, wanted, limit
        self.seen: set[str] = set()
        self.total = max(_FLOOR, _RATIO * place.path.stat().st_size)
        self.unpacked = 0

    def pick(self, name: str, size: int, plain: bool, folder: bool) -> str | None:
        """Return the name below the prefix if the member is wanted, else None.

        Args:
            name: name as stored.
            size: declared size in bytes.
            plain: whether it is a regular file.
            folder: whether it is a folder.
        """
        self.unpacked += size
        if len(self.seen) >= _MOST_MEMBERS or self.unpacked > self.total:
            raise self.place.damaged(
                f"it would unpack to more than {self.total:,} bytes or {_MOST_MEMBERS:,} files, as no official one does"
            )
        clean = name.removeprefix("./").rstrip("/")
        short = clean.removeprefix(f"{self.place.archive.prefix}/")
        wanted = short in self.wanted and short != clean
        problem = self._problem(clean, name, plain, folder)
        self.seen.add(clean)
        if problem and (wanted or not self.place.verified):
            raise self.place.damaged(f"its member {name[:200]!r} {problem}")
        if not wanted:
            return None
        if not plain or size > self.limit:
            raise self.place.damaged(f"its member {name[:200]!r} is no file of at most {self.limit:,} bytes")
        return short

    def _problem(self, clean: str, name: str, plain: bool, folder: bool) -> str:
        if name.startswith(("/", "\\")) or ".." in clean.replace("\\", "/").split("/") or "\0" in name:
            return "leads outside the archive"
        if not (plain or folder):
            return "is a link or a device"
        return "is there twice" if clean in self.seen and not folder else ""


def _from_folder(place: Place, wanted: frozenset[str], limit: int) -> Iterator[tuple[str, Content]]:
    for name in sorted(wanted):
        path = place.path / name
        if not path.is_file():
            continue
        if path.stat().st_size > limit:
            raise place.damaged(f"{name} has more than {limit:,} bytes")
        yield name, path


def _from_tar(place: Place, wanted: frozenset[str], limit: int) -> Iterator[tuple[str, Content]]:
    names = _Names(place, wanted, limit)
    with place.path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        # headers come on top of the declared sizes, one or two blocks per member
        bounded = _Bounded(stream, 2 * names.total)
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            for member in tar:
                plain = member.isreg() and not member.issparse()
                name = names.pick(member.name, member.size, plain, member.isdir())
                if name is None:
                    continue
                file = tar.extractfile(member)
                content = b"" if file is None else file.read(limit + 1)
                if len(content) != member.size:
                    raise EOFError(f"{name} has {len(content)} bytes instead of {member.size}")
                yield name, content


def _from_zip(place: Place, wanted: frozenset[str], limit: int) -> Iterator[tuple[str, Content]]:
    names = _Names(place, wanted, limit)
    with zipfile.ZipFile(place.path) as archive:
        picked = []
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = not info.is_dir() and kind in (0, stat.S_IFREG)
            name = names.pick(info.filename, info.file_size, plain, info.is_dir())
            if name is not None:
                picked.append((info.header_offset, name, info))
        for _, name, info in sorted(picked, key=lambda p: p[0]):
            with archive.open(info) as file:
                content = file.read(limit + 1)
            if len(content) != info.file_size:
                raise EOFError(f"{name} has {len(content)} bytes instead of {info.file_size}")
            yield name, content
