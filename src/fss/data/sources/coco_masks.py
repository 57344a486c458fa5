"""Rasterise COCO instances to masks of contiguous class ids: once, in parallel, and resumable."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_rle
from rich.console import Console
from rich.progress import track

from fss.data.reading.derived_files import write_atomic
from fss.data.reading.masks import UInt8
from fss.data.reading.process_pool import processes, spread
from fss.data.sources.folds import COCO_CATEGORY_IDS
from fss.errors import DataError

MaskRule = Literal["full", "first_polygon"]
"""How an instance is rasterised; both rules skip crowds and let later annotations overwrite earlier ones.

``full``: its whole mask (as CyCTR). ``first_polygon``: only its first polygon, with coordinates truncated to whole
numbers, filled by OpenCV (as RePRI); instances without polygons are skipped.
"""

_VERSIONS: dict[MaskRule, str] = {"full": "full-v1", "first_polygon": "first_polygon-v1"}
_MARKER = ".complete.json"
_MOST_BYTES, _MOST_PIXELS, _FARTHEST = 1 << 31, 50_000_000, 1e6
_CLASS_ID = {category: k for k, category in enumerate(COCO_CATEGORY_IDS, start=1)}


@dataclass
class MaskTask:
    """One mask to draw.

    Attributes:
        target: the PNG; its stem is the image's.
        height: height of the image.
        width: width of the image.
        rule: how instances are rasterised.
        instances: class id and segmentation, in file order.
        without_polygon: instances left out because they have none (``first_polygon`` only).
    """

    target: Path
    height: int
    width: int
    rule: MaskRule
    instances: list[tuple[int, Any]] = field(default_factory=list)
    without_polygon: int = 0

    def add(self, class_id: int, segmentation: Any) -> None:
        """Append the part of an instance that the rule uses.

        Args:
            class_id: contiguous id, 1 to 80.
            segmentation: polygons or run lengths.

        Raises:
            TypeError: if it is neither (``first_polygon`` only).
        """
        if self.rule == "full":
            self.instances.append((class_id, segmentation))
        elif not isinstance(segmentation, list | dict):
            raise TypeError(f"a segmentation that is neither polygons nor run lengths: {str(segmentation)[:40]}")
        elif isinstance(segmentation, list) and segmentation and segmentation[0]:
            self.instances.append((class_id, segmentation[0]))
        else:
            self.without_polygon += 1


def rule_version(rule: MaskRule) -> str:
    """Return the name under which masks of a rule are cached.

    Args:
        rule: ``full`` or ``first_polygon``.
    """
    return _VERSIONS[rule]


def check_rule(rule: str) -> MaskRule:
    """Return a rule if it exists.

    Args:
        rule: as given by the user.

    Raises:
        DataError: if it does not exist.
    """
    for allowed in get_args(MaskRule):
        if rule == allowed:
            return allowed  # type: ignore[no-any-return]
    raise DataError(f"mask_rule={rule} is not known: choose {' or '.join(get_args(MaskRule))}.")


def rasterise(instances: Path, folder: Path, progress: bool = True, rule: MaskRule = "full") -> int:
    """Write one 8-bit PNG of class ids per annotated image.

    Args:
        instances: COCO's ``instances_*.json``.
        folder: where ``<image>.png`` go; existing masks are kept, so an interrupted run continues.
        progress: show a progress bar.
        rule: how instances are rasterised.

    Returns:
        Number of masks. Images with only crowd annotations get an empty mask, images without annotations get none.

    Raises:
        DataError: if the file is missing, damaged or not an instances file, or the folder cannot be written.
    """
    tasks = read_tasks(instances, folder, rule)
    draw_masks(tasks, f"Masks from {instances.name}", progress)
    write_atomic(folder / _MARKER, json.dumps({"masks": len(tasks), "rule": _VERSIONS[rule]}))
    return len(tasks)


def is_complete(folder: Path) -> bool:
    """Return whether :func:`rasterise` has finished a folder and all masks are still there.

    Args:
        folder: its output folder.
    """
    try:
        expected = json.loads((folder / _MARKER).read_text())["masks"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(expected == sum(1 for _ in folder.glob("*.png")))


def read_tasks(instances: Path, folder: Path, rule: MaskRule) -> list[MaskTask]:
    """Read the masks to draw from an instances file.

    Args:
        instances: COCO's ``instances_*.json``.
        folder: where ``<image>.png`` will go.
        rule: how instances are rasterised.

    Returns:
        One task per annotated image, by ascending COCO id.

    Raises:
        DataError: if the file is missing, too large, damaged or not an instances file.
    """
    try:
        if instances.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        content = json.loads(instances.read_bytes())
        tasks = {int(i["id"]): _task(i, folder, rule) for i in content["images"]}
        used = set()
        for annotation in content["annotations"]:
            image_id = int(annotation["image_id"])
            used.add(image_id)
            if not annotation.get("iscrowd"):
                tasks[image_id].add(_class_id(annotation["category_id"]), annotation["segmentation"])
        return [tasks[i] for i in sorted(used)]
    except OSError as error:
        raise DataError(f"Cannot read {instances}: {error.strerror or error}. Put COCO's file there.") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{instances} is damaged or no COCO instances file ({type(error).__name__}: {error}). Unpack it again from "
            f"annotations_trainval{instances.stem[-4:]}.zip."
        ) from error


def draw_masks(tasks: Sequence[MaskTask], title: str, progress: bool = True, workers: int | None = None) -> None:
    """Write the masks that do not exist yet, in several processes if there are many.

    Processes are spawned: a script without an ``if __name__ == "__main__"`` guard must pass ``workers=1``.

    Args:
        tasks: from :func:`read_tasks`.
        title: title of the progress bar.
        progress: show the bar.
        workers: processes; None: one per core, at most 16.

    Raises:
        DataError: if an instance cannot be drawn or the folder cannot be written.
    """
    todo = [task for task in tasks if not task.target.is_file()]
    done = spread(_write, todo, processes(workers, len(todo)))
    for _ in track(done, title, len(todo), console=Console(stderr=True), disable=not (progress and todo)):
        pass


def _class_id(category: Any) -> int:
    if int(category) not in _CLASS_ID:
        raise ValueError(f"category_id {category} is none of COCO's 80 categories")
    return _CLASS_ID[int(category)]


def _task(image: Any, folder: Path, rule: MaskRule) -> MaskTask:
    height, width = int(image["height"]), int(image["width"])
    if height < 1 or width < 1 or height * width > _MOST_PIXELS:
        raise ValueError(f"an image of {width} x {height} pixels")
    return MaskTask(folder / f"{Path(str(image['file_name'])).stem}.png", height, width, rule)


def _write(task: MaskTask) -> None:
    buffer = io.BytesIO()
    Image.fromarray(_draw(task)).save(buffer, format="PNG")
    write_atomic(task.target, buffer.getvalue())


def _draw(task: MaskTask) -> UInt8:
    canvas: UInt8 = np.zeros((task.height, task.width), dtype=np.uint8)
    for class_id, segmentation in task.instances:
        try:
            if task.rule == "full":
                canvas[_decode(segmentation, task.height, task.width)] = class_id
            else:
                cv2.fillPoly(canvas, [_corners(segmentation)], class_id)
        except Exception as error:  # pycocotools raises bare Exception and TypeError
            raise DataError(
                f"An instance of {task.target.stem} cannot be drawn ({error}). The instances file is damaged; unpack "
                "it again from annotations_trainval2014.zip (2017: annotations_trainval2017.zip)."
            ) from error
    return canvas


def _corners(polygon: Any) -> Any:
    """Return the corners of a polygon x1, y1, x2, y2, ..., truncated to whole numbers, (N, 2), int32."""
    corners = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    if not len(corners) or not (np.abs(corners) < _FARTHEST).all():
        raise ValueError("a polygon without corners, or with one far outside the image")
    return corners.astype(np.int32)


def _decode(segmentation: Any, height: int, width: int) -> Any:
    """Return the pixels of an instance, (H, W), bool; polygons, plain and compressed run lengths."""
    if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
        runs = segmentation
    elif isinstance(segmentation, dict):
        runs = coco_rle.frPyObjects(segmentation, height, width)
    else:
        runs = coco_rle.merge(coco_rle.frPyObjects(segmentation, height, width))
    return coco_rle.decode(runs).astype(bool)
