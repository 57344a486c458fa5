"""Read the file of a W&B run back: a log of checksummed records, each a message of W&B's own protocol."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as protocol

_BLOCK, _HEAD, _IDENTITY = 32768, 7, 7
_FULL, _LAST = 1, 4


@dataclass
class WandbFile:
    """What a local file says of a run.

    Attributes:
        run: W&B's record of the run: id, group, job type, tags, whether it continues another.
        config: key -> value.
        summary: key -> value; nested dictionaries for metrics with a direction.
        history: rows as they were logged.
        metrics: name, or name ending in ``*`` -> W&B's record of a defined metric.
        artifacts: W&B's records of artifacts.
        exit_code: of the run; None if it was cut off.
        folder: of the run's media, ``files`` beside the file.
    """

    folder: Path
    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None

    def column(self, name: str) -> list[Any]:
        """Return what was logged under a name, in order."""
        return [row[name] for row in self.history if name in row]

    def artifact(self, kind: str) -> Any:
        """Return the only artifact of a type."""
        (found,) = [a for a in self.artifacts if a.type == kind]
        return found

    def table(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of the last table that was logged under a name."""
        content = json.loads((self.folder / self.column(name)[-1]["path"]).read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def read_all(folder: Path) -> list[WandbFile]:
    """Read every file of the W&B runs below a run's folder, in the order of their beginning."""
    return [read(path) for path in sorted(folder.glob("wandb/*run-*/run-*.wandb"))]


def read(path: Path) -> WandbFile:
    """Read one file."""
    found = WandbFile(path.parent / "files")
    for record in records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            _apply(found.config, record.run.config.update)
        elif kind == "config":
            _apply(found.config, record.config.update)
        elif kind == "summary":
            _apply(found.summary, record.summary.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _apply(row, record.history.item)
            found.history.append(row)
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def records(content: bytes) -> Iterator[Any]:
    """Yield the records of a file; a wrong checksum fails."""
    assert content[:4] == b":W&B"
    position, parts = _IDENTITY, []
    while position + _HEAD <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEAD:
            position += left
            continue
        checksum, length, kind = struct.unpack("<IHB", content[position : position + _HEAD])
        body = content[position + _HEAD : position + _HEAD + length]
        position += _HEAD + length
        assert zlib.crc32(bytes([kind]) + body) == checksum
        parts.append(body)
        if kind in (_FULL, _LAST):
            record = protocol.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def _apply(target: dict[str, Any], updates: Any) -> None:
    for update in updates:
        *parents, leaf = list(update.nested_key) or [update.key]
        node = target
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = json.loads(update.value_json)
