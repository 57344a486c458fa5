"""One process per run: atomic claims on run folders, with a heartbeat, on any shared file system.

A claim is a file ``.claim-N`` that only one process can create (a link to a free name: atomic on NFS, too). The
highest N counts. Its owner touches it regularly. Who finds it stale creates the next number, so that of several takers
one wins, and an owner that was only asleep sees that it has lost.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fss.files import remove_empty

log = logging.getLogger(__name__)

BEAT_S = 20.0
"""Seconds between two heartbeats."""

LOOK_S = 2.0
"""Seconds between two looks at a claim that is waited for."""

STALE_S = 300.0
"""Seconds without heartbeat after which a claim of another machine can be taken over; a dead process of this machine
loses its claim at once."""

CLAIM = ".claim-"
"""Begin of the names of claims."""

_FILE = re.compile(r"\.claim-(\d{6})")


@dataclass(frozen=True)
class Owner:
    """The process that works on a run.

    Attributes:
        host: name of its machine.
        pid: number of its process.
        born: start of the process in clock ticks since boot, as numbers of processes are used again.
        space: identifies machine start and process name space; pid and born mean something within it only.
        since: begin of the claim, seconds since 1970.
        token: tells two claims of one process apart.
    """

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    born: str = field(default_factory=lambda: _born(os.getpid()))
    space: str = field(default_factory=lambda: _space())
    since: float = field(default_factory=time.time)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def holder(folder: Path) -> Owner | None:
    """Tell who works on a run now.

    Args:
        folder: of the run.

    Returns:
        The owner of the valid claim, or None if there is none or it is stale.
    """
    newest = _newest(folder)
    return None if newest is None else _alive(newest[1])


@contextmanager
def claimed(folder: Path, wait: bool = False) -> Iterator[Owner | None]:
    """Claim a run while the block runs.

    Args:
        folder: of the run; made if needed.
        wait: until the process that has it is done, instead of naming it.

    Yields:
        None if the run is ours now, else the process that has it.

    Raises:
        OSError: if the folder cannot be written.
    """
    taken = _take(folder)
    if isinstance(taken, Owner) and wait:
        log.info("%s works on %s; waiting for it.", taken, folder)
    while isinstance(taken, Owner) and wait:
        time.sleep(LOOK_S)
        taken = _take(folder)
    if isinstance(taken, Owner):
        yield taken
        return
    number, mine = _number(taken), _read(taken)
    token = "" if mine is None else mine.token
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(taken, done), daemon=True)
    beat.start()
    try:
        yield None
    finally:
        done.set()
        beat.join()
        for found, path in sorted(_claims(folder)):
            owner = _read(path)
            if found < number or (owner is not None and owner.token == token):  # the folder may be another's by now
                path.unlink(missing_ok=True)
        for draft in folder.glob(".claim-draft-*"):  # of processes that were killed while they looked
            draft.unlink(missing_ok=True)
        remove_empty(folder)


def _take(folder: Path) -> Path | Owner:
    """Create the next claim unless a living one is there; return the new file, or who has the run."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        newest = _newest(folder)
        if newest is not None:
            owner = _alive(newest[1])
            if owner is not None:
                return owner
            log.info("Taking over %s: the process that had it has ended without a word.", folder)
        mine = Owner()
        path = folder / f".claim-{(newest[0] if newest else 0) + 1:06d}"
        if not _create(path, mine):
            continue
        # Between look and creation others may have come and gone, so that the number is free but the run is not.
        rivals = [_alive(p) for _, p in _claims(folder) if p != path]
        earlier = [r for r in rivals if r is not None and (r.since, r.token) < (mine.since, mine.token)]
        if not earlier:
            return path
        path.unlink()
        return earlier[0]


def _create(path: Path, mine: Owner) -> bool:
    """Create a claim whole: written beside it, then linked to a name that must be free."""
    draft = path.with_name(f".claim-draft-{mine.token}")
    draft.write_text(json.dumps(asdict(mine)))
    try:
        os.link(draft, path)
    except (FileExistsError, FileNotFoundError):  # taken, or our draft was swept away by who had the run
        return False
    except OSError:  # a file system without hard links
        return _create_in_place(path, mine)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _create_in_place(path: Path, mine: Owner) -> bool:
    try:
        with open(path, "x") as file:
            file.write(json.dumps(asdict(mine)))
    except FileExistsError:
        return False
    return True


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT_S):
        with suppress(OSError):  # a file server may be away for a while
            os.utime(path)
        newest = _newest(path.parent)
        if newest is not None and newest[0] > _number(path):
            log.error("Another process took %s over while this one stood still for %g s.", path.parent, STALE_S)
            os.kill(os.getpid(), signal.SIGTERM)  # both would write the same files
            return


def _claims(folder: Path) -> list[tuple[int, Path]]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return [(_number(p), p) for p in folder.iterdir() if _FILE.fullmatch(p.name)]
    return []


def _number(path: Path) -> int:
    found = _FILE.fullmatch(path.name)
    return int(found[1]) if found else 0


def _newest(folder: Path) -> tuple[int, Path] | None:
    return max(_claims(folder), default=None)


def _alive(path: Path) -> Owner | None:
    """Return the owner of a claim if it lives."""
    owner = _read(path)
    if owner is None:
        return None
    if owner.space == _space():
        born = _born(owner.pid)
        if born or not _hidden(owner.pid):
            return owner if owner.born == born != "" else None
    try:
        age = _now(path.parent) - path.stat().st_mtime
    except OSError:
        return None
    return owner if age < STALE_S else None


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None  # released in this moment
    except (ValueError, TypeError):  # emptied by a power failure: only its age tells
        return Owner("an unknown machine", 0, "", "", 0.0, "")


def _now(folder: Path) -> float:
    """Return the time by the clock of the file server, which may differ from this machine's."""
    probe = folder / f".claim-draft-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _born(pid: int) -> str:
    """Return when a process started, or nothing if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # an ended process keeps its number until its parent looks


def _hidden(pid: int) -> bool:
    """Tell whether a process lives that /proc does not show to us, as others' under ``hidepid``."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return not Path("/proc/self/stat").exists()


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: only the heartbeat tells
        return uuid.uuid4().hex
