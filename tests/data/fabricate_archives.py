"""Writes small archives in the layouts of VOC 2012, SBD and COCO, large enough to train on for a few steps.

Every image holds two classes of one fold, so that no fold's training list is empty. Counts and hashes are not the
official ones: prepare them with ``--unverified``.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat
from tests.data.fabricate import SIZE, make_image, two_class_mask

from fss.data.sources.folds import COCO_CATEGORY_IDS, COCO_CLASSES

VOC_NAME, SBD_NAME = "VOCtrainval_11-May-2012.tar", "benchmark.tgz"


@dataclass(frozen=True)
class PascalIds:
    """Which image is in which image set of the fabricated archives; ``expected_*`` are the lists that follow."""

    seg_train: tuple[str, ...] = tuple(f"2007_{k:06d}" for k in range(20))
    seg_val: tuple[str, ...] = tuple(f"2009_{k:06d}" for k in range(40))
    sbd_only: tuple[str, ...] = tuple(f"2008_{k:06d}" for k in range(24))
    main_val_only: tuple[str, ...] = tuple(f"2010_{k:06d}" for k in range(3))
    unused: tuple[str, ...] = tuple(f"2011_{k:06d}" for k in range(3))

    @property
    def sbd(self) -> tuple[str, ...]:
        """All images of SBD: shared ones, ones that must not be trained on, and its own; not in order."""
        return (*self.sbd_only[::-1], *self.seg_train[:10], *self.seg_val[:3], *self.main_val_only)

    @property
    def main_val(self) -> tuple[str, ...]:
        return (*self.seg_val[:30], *self.main_val_only)

    @property
    def expected_train(self) -> list[str]:
        return [*self.seg_train[:10], *self.sbd_only, *self.seg_train[10:]]

    @property
    def expected_val(self) -> list[str]:
        return list(self.seg_val)

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.seg_train, *self.seg_val, *self.sbd_only, *self.main_val_only, *self.unused)


IDS = PascalIds()


@dataclass
class Images:
    """What the archives of :func:`write_voc_archive` and :func:`write_sbd_archive` hold for an image."""

    ids: PascalIds = field(default_factory=PascalIds)

    def number(self, image_id: str) -> int:
        for group in (self.ids.expected_train, self.ids.expected_val):
            if image_id in group:
                return group.index(image_id)
        return 0

    def jpeg(self, image_id: str) -> bytes:
        return encoded(Image.fromarray(make_image(int(image_id.replace("_", "")))), "JPEG")

    def voc_mask(self, image_id: str) -> np.ndarray:
        first, second = _fold_mates(self.number(image_id), 20, 5, 1)
        return two_class_mask(first, second)

    def sbd_mask(self, image_id: str) -> np.ndarray:
        """Return the same without void; SBD's outlines differ from VOC's where both have the image."""
        mask = self.voc_mask(image_id)
        mask[mask == 255] = 0
        mask[:4, :4] = mask.max()
        return mask


def _fold_mates(k: int, classes: int, per_block: int, step: int) -> tuple[int, int]:
    first = k % classes
    block = first // (per_block * step) * per_block * step
    return first + 1, block + (first - block + step) % (per_block * step) + 1


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def voc_palette() -> list[int]:
    """Return VOC's colours: the bits of an index, three at a time, become the highest bits of red, green, blue."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        rest = index
        for bit in range(7, -1, -1):
            for channel in range(3):
                colours[index, channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
    return [int(v) for v in colours.ravel()]


def palette_png(mask: np.ndarray) -> bytes:
    image = Image.fromarray(mask)
    image.putpalette(voc_palette())
    return encoded(image, "PNG")


def sbd_mat(segmentation: Any) -> bytes:
    """Return a .mat file with the structure GTcls of SBD."""
    boundaries = np.empty((20, 1), object)
    for k in range(20):
        boundaries[k, 0] = np.zeros((2, 2), np.uint8)
    content = {"Boundaries": boundaries, "Segmentation": segmentation, "CategoriesPresent": np.array([[1], [2]])}
    buffer = io.BytesIO()
    savemat(buffer, {"GTcls": content}, do_compression=True)
    return buffer.getvalue()


def add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def write_voc_archive(folder: Path, ids: PascalIds = IDS) -> Path:
    """Write ``VOCtrainval_11-May-2012.tar``."""
    folder.mkdir(parents=True, exist_ok=True)
    base, made = "VOCdevkit/VOC2012", Images(ids)
    with tarfile.open(folder / VOC_NAME, "w") as archive:
        for name in ("VOCdevkit", base, f"{base}/JPEGImages"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for image_id in ids.all:
            add_bytes(archive, f"{base}/Annotations/{image_id}.xml", b"<annotation/>")
        sets = {
            "Segmentation/train": ids.seg_train,
            "Segmentation/val": ids.seg_val,
            "Segmentation/trainval": (*ids.seg_train, *ids.seg_val),
            "Main/train": (*ids.seg_train, *ids.sbd_only),
            "Main/val": ids.main_val,
        }
        for name, chosen in sets.items():
            add_bytes(archive, f"{base}/ImageSets/{name}.txt", "".join(f"{i}\n" for i in chosen).encode())
        for image_id in ids.all:
            add_bytes(archive, f"{base}/JPEGImages/{image_id}.jpg", made.jpeg(image_id))
        for image_id in (*ids.seg_train, *ids.seg_val):
            add_bytes(archive, f"{base}/SegmentationClass/{image_id}.png", palette_png(made.voc_mask(image_id)))
            add_bytes(archive, f"{base}/SegmentationObject/{image_id}.png", palette_png(made.voc_mask(image_id)))
    return folder / VOC_NAME


def write_sbd_archive(folder: Path, ids: PascalIds = IDS) -> Path:
    """Write ``benchmark.tgz``."""
    folder.mkdir(parents=True, exist_ok=True)
    base, made = "benchmark_RELEASE/dataset", Images(ids)
    with tarfile.open(folder / SBD_NAME, "w:gz", compresslevel=1) as archive:
        for image_id in ids.sbd:
            add_bytes(archive, f"{base}/cls/{image_id}.mat", sbd_mat(made.sbd_mask(image_id)))
            add_bytes(archive, f"{base}/img/{image_id}.jpg", made.jpeg(image_id))
            add_bytes(archive, f"{base}/inst/{image_id}.mat", sbd_mat(made.sbd_mask(image_id)))
        for name, chosen in (("train", ids.sbd[::2]), ("val", ids.sbd[1::2])):
            add_bytes(archive, f"{base}/{name}.txt", "".join(f"{i}\n" for i in chosen).encode())
    return folder / SBD_NAME


def coco_instances(split: str, images: int, year: int) -> dict[str, Any]:
    """Return an instances file: two squares of one fold per image, a second polygon, run lengths and a crowd.

    The first image has no annotation. Entries are not in the order of their ids.
    """
    entries, annotations = [], []
    first_id = 1000 if split == "train" else 5000
    for k in reversed(range(images + 1)):
        stem = f"{first_id + k:012d}"
        name = f"COCO_{split}2014_{stem}.jpg" if year == 2014 else f"{stem}.jpg"
        entries.append({"id": first_id + k, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        if k == 0:
            continue
        mates = _fold_mates(k - 1, 80, 20, 4)
        for j, class_id in enumerate(mates[::-1]):
            x, y = (60.6, 40.6) if j == 0 else (8.0, 8.0)
            polygons: Any = [[x, y, x + 50, y, x + 50, y + 50, x, y + 50]]
            if j == 0:
                polygons.append([2.0, 80.0, 30.0, 80.0, 30.0, 95.0, 2.0, 95.0])
            annotations.append(_instance(annotations, first_id + k, class_id, polygons))
        crowd = {"size": list(SIZE), "counts": [0, SIZE[0], SIZE[0] * (SIZE[1] - 1)]}
        annotations.append(_instance(annotations, first_id + k, mates[0], crowd) | {"iscrowd": int(k % 2 == 0)})
    names = zip(COCO_CATEGORY_IDS, COCO_CLASSES.values(), strict=True)
    return {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": c, "name": n, "supercategory": ""} for c, n in names],
    }


def _instance(known: list[Any], image_id: int, class_id: int, segmentation: Any) -> dict[str, Any]:
    category = COCO_CATEGORY_IDS[class_id - 1]
    named = {"id": len(known), "image_id": image_id, "category_id": category, "iscrowd": 0}
    return named | {"segmentation": segmentation, "area": 2500.0, "bbox": [0.0, 0.0, 50.0, 50.0]}


def write_coco_archives(folder: Path, images: int = 80, year: int = 2014) -> Path:
    """Write ``train<year>.zip``, ``val<year>.zip`` and ``annotations_trainval<year>.zip`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"annotations_trainval{year}.zip", "w", zipfile.ZIP_DEFLATED) as notes:
        for split in ("train", "val"):
            content = coco_instances(split, images, year)
            notes.writestr(f"annotations/captions_{split}{year}.json", "{}")
            notes.writestr(f"annotations/instances_{split}{year}.json", json.dumps(content))
            with zipfile.ZipFile(folder / f"{split}{year}.zip", "w") as archive:
                archive.mkdir(f"{split}{year}")
                for entry in content["images"]:
                    jpeg = encoded(Image.fromarray(make_image(entry["id"])), "JPEG")
                    archive.writestr(f"{split}{year}/{entry['file_name']}", jpeg)
    return folder
