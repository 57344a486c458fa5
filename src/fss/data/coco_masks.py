"""Rasterise COCO instances to masks of contiguous class ids, once, in parallel, resumable."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_rle
from rich.console import Console
from rich.progress import track

from fss.data.cache import write_atomic
from fss.data.errors import DataError
from fss.data.folds import COCO_CATEGORY_IDS
from fss.data.masks import UInt8

RULE = "full-v1"
"""Name of the convention: full instance masks, crowds skipped, later annotations over earlier ones."""

_MARKER = ".complete.json"
_FEW = 256  # pictures below which starting processes costs more than it saves
_CLASS_ID = {category: k for k, category in enumerate(COCO_CATEGORY_IDS, start=1)}


@dataclass
class _Task:
    target: Path
    height: int
    width: int
    instances: list[tuple[int, Any]] = field(default_factory=list)  # class id, segmentation; in file order


def rasterise(instances: Path, folder: Path, progress: bool = True) -> int:
    """Write one 8-bit PNG of class ids per annotated picture.

    Args:
        instances: COCO's ``instances_*.json``.
        folder: where ``<picture>.png`` go; masks already there are kept, so an interrupted run continues.
        progress: show a bar.

    Returns:
        Number of masks. Pictures with crowd annotations only get an empty mask, those without any get none.

    Raises:
        DataError: if the file is missing, damaged or no instances file, or the folder cannot be written.
    """
    tasks = _read_tasks(instances, folder)
    todo = [task for task in tasks if not task.target.is_file()]
    title = f"Masks from {instances.name}"
    done = track(_run(todo), title, len(todo), console=Console(stderr=True), disable=not (progress and todo))
    for _ in done:
        pass
    write_atomic(folder / _MARKER, json.dumps({"masks": len(tasks), "rule": RULE}))
    return len(tasks)


def is_complete(folder: Path) -> bool:
    """Tell whether :func:`rasterise` has finished a folder and all masks are still there.

    Args:
        folder: its output folder.
    """
    try:
        expected = json.loads((folder / _MARKER).read_text())["masks"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(expected == sum(1 for _ in folder.glob("*.png")))


def _read_tasks(instances: Path, folder: Path) -> list[_Task]:
    try:
        content = json.loads(instances.read_bytes())
        tasks = {
            int(i["id"]): _Task(folder / f"{Path(str(i['file_name'])).stem}.png", int(i["height"]), int(i["width"]))
            for i in content["images"]
        }
        used = set()
        for annotation in content["annotations"]:
            image_id = int(annotation["image_id"])
            used.add(image_id)
            if not annotation.get("iscrowd"):
                segmentation = annotation["segmentation"]
                tasks[image_id].instances.append((_CLASS_ID[int(annotation["category_id"])], segmentation))
    except OSError as error:
        raise DataError(f"Cannot read {instances}: {error.strerror or error}. Put COCO's file there.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{instances} is damaged or no COCO instances file ({type(error).__name__}: {error}). Unpack it again from "
            "annotations_trainval2014.zip."
        ) from error
    return [tasks[i] for i in sorted(used)]


def _run(tasks: list[_Task]) -> Iterator[None]:
    if len(tasks) < _FEW:
        yield from map(_write, tasks)
        return
    with ProcessPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        yield from pool.map(_write, tasks, chunksize=32)


def _write(task: _Task) -> None:
    buffer = io.BytesIO()
    Image.fromarray(_draw(task)).save(buffer, format="PNG")
    write_atomic(task.target, buffer.getvalue())


def _draw(task: _Task) -> UInt8:
    canvas: UInt8 = np.zeros((task.height, task.width), dtype=np.uint8)
    for class_id, segmentation in task.instances:
        try:
            canvas[_decode(segmentation, task.height, task.width)] = class_id
        except Exception as error:  # pycocotools raises bare Exception and TypeError
            raise DataError(
                f"An instance of {task.target.stem} cannot be drawn ({error}). The instances file is damaged; unpack "
                "it again from annotations_trainval2014.zip."
            ) from error
    return canvas


def _decode(segmentation: Any, height: int, width: int) -> Any:
    """Return the pixels of an instance, (H, W), bool; polygons, plain and compressed run lengths."""
    if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
        runs = segmentation
    elif isinstance(segmentation, dict):
        runs = coco_rle.frPyObjects(segmentation, height, width)
    else:
        runs = coco_rle.merge(coco_rle.frPyObjects(segmentation, height, width))
    return coco_rle.decode(runs).astype(bool)
