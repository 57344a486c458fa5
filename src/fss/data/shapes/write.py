"""Write the shapes data set from a seed, in the layouts of VOC and of torchvision's ImageFolder.

    root/JPEGImages/ID.jpg                      scenes
    root/SegmentationClassAug/ID.png            class ids 1..20, 0 background, 255 outlines; 8-bit grey
    root/ImageSets/FewShot/{train,val}.txt      one ID per line
    root/classes.txt                            20 names in order of id
    root/classification/{train,val}/NAME/N.jpg  single objects of other classes, for pre-training
    root/manifest.json                          seed, counts, version: written last

The folder gets its final name only when it is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from rich.progress import track

from fss.data.reading.process_pool import spread
from fss.data.shapes import brushes as drawing
from fss.data.shapes import outlines, scenes
from fss.data.shapes import textures as surfaces
from fss.data.shapes.scenes import CLASSES, OTHER_CLASSES, Objects, SceneSplit, class_name, draw_scene, draw_single
from fss.errors import DataError

log = logging.getLogger(__name__)

Files = list[tuple[str, bytes]]
Job = tuple[Callable[..., Files], tuple[Any, ...]]

_FORMAT = 1


def write_shapes(
    root: Path,
    seed: int = 0,
    *,
    train: int = 1600,
    val: int = 500,
    pretrain_per_class: int = 150,
    objects: Objects = "small",
    workers: int | None = None,
) -> None:
    """Write the data set, or return at once if the same one already exists.

    It is built next to ``root`` and renamed, so that an interrupted write leaves nothing under ``root``. A second
    process waits for the first. A data set of other values or another generator version is replaced.

    Args:
        root: folder to create.
        seed: every image is a pure function of (seed, split, number).
        train: number of scenes for training.
        val: number of scenes for validation and test.
        pretrain_per_class: images per class for pre-training, plus a fifth as many for its validation.
        objects: size of the objects in the scenes.
        workers: processes; by default one per core. The files do not depend on it. Processes are spawned, so a script
            without an ``if __name__ == "__main__"`` guard must pass 1.

    Raises:
        DataError: if a count is not positive, the size of objects is unknown, ``root`` holds files that this function
            did not write, or the disk is full.
    """
    counts = {"train": train, "val": val, "pretrain_per_class": pretrain_per_class}
    for name, count in counts.items():
        if count < 1:
            raise DataError(f"{name}={count}: give at least 1")
    root = Path(root).absolute()
    if objects not in get_args(Objects):
        raise DataError(f"objects={objects!r}: choose one of {', '.join(get_args(Objects))}")
    manifest = {"name": "shapes", "seed": seed, **counts, "objects": objects, "version": generator_version()}
    if _is_complete(root, manifest):
        return
    _check_replaceable(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with _lock(root.with_name(f".{root.name}.lock")):
        if _is_complete(root, manifest):
            return
        _check_replaceable(root)
        partial = root.with_name(f".{root.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _write_all(partial, manifest, workers or os.cpu_count() or 1)
            shutil.rmtree(root, ignore_errors=True)
            partial.rename(root)
        except OSError as error:
            raise DataError(
                f"Cannot write {root}: {error.strerror or error}. Make room, or give another --root, and type the same "
                "command again."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def generator_version() -> str:
    """Return a hash of the drawing code, so that a changed drawing rule makes a new data set."""
    sources = [Path(str(module.__file__)).read_bytes() for module in (outlines, surfaces, drawing, scenes)]
    return hashlib.sha256(b"\0".join([str(_FORMAT).encode(), *sources])).hexdigest()[:16]


def _is_complete(root: Path, manifest: dict[str, Any]) -> bool:
    """Return whether ``root`` holds exactly this data set with all its files."""
    if _read_manifest(root) != manifest:
        return False
    scenes_expected = manifest["train"] + manifest["val"]
    singles_expected = len(OTHER_CLASSES) * sum(_single_counts(manifest).values())
    return (
        _count(root, "JPEGImages/*.jpg") == scenes_expected
        and _count(root, "SegmentationClassAug/*.png") == scenes_expected
        and _count(root, "classification/*/*/*.jpg") == singles_expected
    )


def _count(root: Path, pattern: str) -> int:
    return sum(1 for _ in root.glob(pattern))


def _read_manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest, or None if there is no readable one."""
    try:
        manifest = json.loads((root / "manifest.json").read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _check_replaceable(root: Path) -> None:
    """Refuse to replace a folder of other files."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    manifest = _read_manifest(root)
    if manifest is None or manifest.get("name") != "shapes":
        raise DataError(f"{root} holds files that are no shapes data set; choose another --root or empty it")
    log.info("replacing the shapes data set in %s: other options or version, or files missing", root)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the system releases even if the process is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_all(root: Path, manifest: dict[str, Any], workers: int) -> None:
    """Write every file of the data set, the manifest last."""
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/FewShot"):
        (root / folder).mkdir(parents=True)
    for split, pair in product(get_args(SceneSplit), OTHER_CLASSES):
        (root / "classification" / split / class_name(pair)).mkdir(parents=True)
    for split in get_args(SceneSplit):
        ids = [_scene_id(split, n) for n in range(manifest[split])]
        (root / "ImageSets/FewShot" / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
    (root / "classes.txt").write_text("".join(f"{class_name(pair)}\n" for pair in CLASSES))
    jobs = list(_jobs(manifest))
    for files in track(spread(_call, jobs, workers), total=len(jobs), description="drawing shapes"):
        for name, data in files:
            (root / name).write_bytes(data)
    (root / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _call(job: Job) -> Files:
    encode, arguments = job
    return encode(*arguments)


def _jobs(manifest: dict[str, Any]) -> Iterator[Job]:
    """Yield one call per image."""
    seed = manifest["seed"]
    for split in get_args(SceneSplit):
        for number in range(manifest[split]):
            yield _encode_scene, (seed, split, number, manifest["objects"])
        for index, number in product(range(len(OTHER_CLASSES)), range(_single_counts(manifest)[split])):
            yield _encode_single, (seed, split, index, number)


def _single_counts(manifest: dict[str, Any]) -> dict[str, int]:
    """Return the pre-training images per class of each split."""
    per_class = manifest["pretrain_per_class"]
    return {"train": per_class, "val": max(1, per_class // 5)}


def _scene_id(split: SceneSplit, number: int) -> str:
    return f"{split}_{number:05d}"


def _encode_scene(seed: int, split: SceneSplit, number: int, objects: Objects) -> Files:
    """Return the files of one scene, path below the root and content."""
    image, label = draw_scene(seed, split, number, objects)
    name = _scene_id(split, number)
    jpeg = _encode_jpeg(image, low=70, key=(seed, number))
    return [(f"JPEGImages/{name}.jpg", jpeg), (f"SegmentationClassAug/{name}.png", _encode(".png", label, []))]


def _encode_single(seed: int, split: SceneSplit, index: int, number: int) -> Files:
    """Return the file of one pre-training image, path below the root and content."""
    jpeg = _encode_jpeg(draw_single(seed, split, index, number), low=90, key=(seed, number))
    return [(f"classification/{split}/{class_name(OTHER_CLASSES[index])}/{number:04d}.jpg", jpeg)]


def _encode_jpeg(image: drawing.Mask, low: int, key: tuple[int, int]) -> bytes:
    """Encode an RGB image (H, W, 3) with a quality between ``low`` and 95 that varies with ``key``."""
    quality = low + int(np.random.default_rng([*key, 7]).integers(96 - low))
    return _encode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(suffix: str, pixels: drawing.Mask, options: list[int]) -> bytes:
    _, data = cv2.imencode(suffix, np.ascontiguousarray(pixels), options)
    return data.tobytes()
