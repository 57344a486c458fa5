"""Writes tiny data sets in the real folder layouts."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (96, 128)  # height, width of the images


def make_image(seed: int, shape: tuple[int, int] = SIZE) -> np.ndarray:
    """Return smooth noise, RGB, (H, W, 3), uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (7, 7), 2)


def save_mask(path: Path, mask: np.ndarray, palette: bool = True) -> None:
    image = Image.fromarray(mask)
    if palette:
        colours = np.random.default_rng(0).integers(0, 256, 768).tolist()
        image.putpalette(colours)
    image.save(path)


def two_class_mask(first: int, second: int, shape: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a mask with two rectangles of 48 x 48 = 2304 pixels and an ignored column."""
    mask = np.zeros(shape, np.uint8)
    mask[8:56, 8:56] = first
    mask[40:88, 70:118] = second
    mask[:, 64] = 255
    return mask


def write_voc(root: Path, per_split: int = 80, classes: int = 20) -> Path:
    """Write images that hold two classes each; every class is in per_split * 2 / classes images of a list."""
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/FewShot"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"thing{c}\n" for c in range(1, classes + 1)))
    for offset, split in ((0, "train"), (1000, "val")):
        ids = []
        for k in range(per_split):
            image_id = f"{split}_{k:04d}"
            first = k % classes + 1
            second = (k + 1 + (k // classes)) % classes + 1
            Image.fromarray(make_image(offset + k)).save(root / "JPEGImages" / f"{image_id}.jpg")
            save_mask(root / "SegmentationClassAug" / f"{image_id}.png", two_class_mask(first, second))
            ids.append(image_id)
        (root / "ImageSets" / "FewShot" / f"{split}.txt").write_text("\n".join(ids) + "\n")
    return root


def write_coco(root: Path, categories: dict[int, str], images: int = 6) -> Path:
    """Write photographs and instances in COCO's layout; ids are not in file order and one image has none."""
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"{split}2014").mkdir()
        first = 100 if split == "train" else 500
        entries, annotations = [], []
        for k in reversed(range(images)):
            image_id = first + k
            name = f"COCO_{split}2014_{image_id:012d}.jpg"
            Image.fromarray(make_image(image_id)).save(root / f"{split}2014" / name)
            entries.append({"id": image_id, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
            if k == 0:
                continue  # an image without annotations
            for j, category in enumerate(list(categories)[:3]):
                x, y = 10.0 + 20 * j, 10.0 + 10 * j
                square = [x, y, x + 50, y, x + 50, y + 50, x, y + 50]
                annotations.append(
                    {"id": len(annotations), "image_id": image_id, "category_id": category, "iscrowd": 0}
                    | {"segmentation": [square], "area": 2500.0, "bbox": [x, y, 50.0, 50.0]}
                )
        content = {
            "images": entries,
            "annotations": annotations,
            "categories": [{"id": c, "name": n, "supercategory": ""} for c, n in categories.items()],
        }
        (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(content))
    return root
