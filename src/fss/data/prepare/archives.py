"""The official archives of every data set: addresses, checksums, and how they are found and verified on disk."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fss.errors import DataError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """One official file.

    Attributes:
        name: file name.
        url: official address.
        size: bytes.
        md5: 32 hexadecimal digits.
        prefix: folder in the archive with everything needed; also its relative path once unpacked.
        probe: file below ``prefix`` that identifies an unpacked copy; empty: the folder itself identifies it.
    """

    name: str
    url: str
    size: int
    md5: str
    prefix: str
    probe: str = ""


# URL and MD5 of the first two: torchvision.datasets, voc.py and sbd.py.
VOC = Archive(
    "VOCtrainval_11-May-2012.tar",
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    1_999_639_040,
    "6cd6e144f989b92b3379bac3b3de84fd",
    "VOCdevkit/VOC2012",
    "ImageSets/Segmentation/train.txt",
)
SBD = Archive(
    "benchmark.tgz",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    1_419_539_633,
    "82b4d87ceb2ed10f6038a1cba92111cb",
    "benchmark_RELEASE/dataset",
    "train.txt",
)


def _coco(kind: str, name: str, size: int, md5: str, probe: str = "") -> Archive:
    prefix = "annotations" if kind == "annotations" else name
    return Archive(f"{name}.zip", f"http://images.cocodataset.org/{kind}/{name}.zip", size, md5, prefix, probe)


COCO: dict[int, dict[str, Archive]] = {
    2014: {
        "train": _coco("zips", "train2014", 13_510_573_713, "0da8c0bd3d6becc4dcb32757491aca88"),
        "val": _coco("zips", "val2014", 6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3"),
        "annotations": _coco(
            "annotations",
            "annotations_trainval2014",
            252_872_794,
            "0a379cfc70b0e71301e0f377548639bd",
            "instances_train2014.json",
        ),
    },
    2017: {
        "train": _coco("zips", "train2017", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
        "val": _coco("zips", "val2017", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
        "annotations": _coco(
            "annotations",
            "annotations_trainval2017",
            252_907_541,
            "f4bbac642086de4f52a3fdda2de5fa2c",
            "instances_train2017.json",
        ),
    },
}
"""Year -> part -> archive."""


@dataclass(frozen=True)
class Place:
    """Location of an archive's content on this machine.

    Attributes:
        archive: the record.
        path: the archive file, or the unpacked folder ``prefix``.
        md5: MD5 of the file; empty for an unpacked folder.
        again: command that downloads the archive again.
    """

    archive: Archive
    path: Path
    md5: str
    again: str

    @property
    def kind(self) -> Literal["folder", "tar", "zip"]:
        """How the content is stored."""
        if not self.md5:
            return "folder"
        return "zip" if self.archive.name.endswith(".zip") else "tar"

    @property
    def verified(self) -> bool:
        """Whether it is the official file, by its MD5."""
        return self.md5 == self.archive.md5

    def damaged(self, reason: str) -> DataError:
        """Return the error for unusable content.

        Args:
            reason: what is wrong.
        """
        if self.kind == "folder":
            return DataError(
                f"The folder {self.path} is incomplete or damaged: {reason}. Unpack {self.archive.name} again, or "
                f"move the folder away and download the archive with: {self.again}"
            )
        return DataError(
            f"The archive {self.path} is damaged or truncated: {reason}. Delete it and download it again with: "
            f"rm {shlex.quote(str(self.path))} && {self.again}"
        )

    def record(self) -> dict[str, str | int | bool]:
        """Return the entry of the archive in the manifest."""
        if self.kind == "folder":
            return {"name": self.archive.name, "unpacked": True, "verified": False}
        size = self.path.stat().st_size
        return {"name": self.archive.name, "size": size, "md5": self.md5, "verified": self.verified}


def on_disk(archive: Archive, folder: Path) -> Path | None:
    """Look for an archive or its unpacked folder.

    Args:
        archive: the record.
        folder: where to look.

    Returns:
        The file, the unpacked folder, or None.
    """
    if (folder / archive.name).is_file():
        return folder / archive.name
    unpacked = folder / archive.prefix
    exists = (unpacked / archive.probe).is_file() if archive.probe else unpacked.is_dir()
    return unpacked if exists else None


def verify(archive: Archive, path: Path, unverified: bool, again: str, progress: bool = True) -> Place:
    """Compare an archive file with its record; a folder is not checked.

    Args:
        archive: the record.
        path: as found by :func:`on_disk`.
        unverified: accept any file.
        again: command that downloads the archive again.
        progress: show a progress bar.

    Returns:
        The location.

    Raises:
        DataError: if size or MD5 differ from the record and ``unverified`` is not set, or reading fails.
    """
    if path.is_dir():
        return Place(archive, path, "", again)
    size = path.stat().st_size
    if size != archive.size and not unverified:
        raise _differs(archive, path, f"it has {size:,} bytes instead of {archive.size:,}", again)
    md5 = hashlib.md5(usedforsecurity=False)
    try:
        with transfer_bar(f"Checking {archive.name}", size, progress) as bar, path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                md5.update(chunk)
                bar.advance(bar.task_ids[0], len(chunk))
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}. Check its permissions and disk.") from error
    if md5.hexdigest() != archive.md5 and not unverified:
        raise _differs(archive, path, f"its MD5 is {md5.hexdigest()} instead of {archive.md5}", again)
    return Place(archive, path, md5.hexdigest(), again)


def missing_error(missing: Sequence[Archive], folder: Path, command: str) -> DataError:
    """Return an error that lists every missing archive.

    Args:
        missing: the records.
        folder: where they were looked for.
        command: the command to repeat.
    """
    lines = [f"  {a.url}  ({a.size:,} bytes, MD5 {a.md5})" for a in missing]
    unpacked = ", ".join(dict.fromkeys(f"{a.prefix}/" for a in missing))
    return DataError(
        f"{len(missing)} archives are missing in {folder}:\n"
        + "\n".join(lines)
        + f"\nPut them there, or what they unpack to ({unpacked}), and run: {command}\n"
        + f"Or let this program fetch them: {command} --download"
    )


def transfer_bar(title: str, total: int, shown: bool) -> Progress:
    """Return a progress bar on stderr with one task, counted in bytes.

    Args:
        title: description of the task.
        total: number of bytes.
        shown: False hides it.
    """
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), *columns, console=Console(stderr=True), disable=not shown
    )
    bar.add_task(title, total=total)
    return bar


def _differs(archive: Archive, path: Path, how: str, again: str) -> DataError:
    return DataError(
        f"{path} is not the official {archive.name}: {how}. Delete it and download it again with: "
        f"rm {shlex.quote(str(path))} && {again} . If you know the file to be good, add --unverified."
    )
