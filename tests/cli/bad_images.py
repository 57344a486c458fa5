"""Bad inputs of images, masks and image lists: what could be read in two ways, or only in part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tests.cli.bad_data import LISTS, MASK, MASKS, VOC, Damage, holds, voc
from tests.cli.bad_inputs import CKPT, Case
from tests.data.fabricate import SIZE, make_image, two_class_mask

IMAGES = f"{VOC}/JPEGImages"
PHOTO, HEIGHT, WIDTH = f"{IMAGES}/train_0003.jpg", *SIZE
OBJECT = np.zeros(SIZE, np.uint8)
OBJECT[20:70, 30:90] = 1


def listed(name: str, content: str | bytes, *words: str) -> Case:
    """Return a case that draws episodes from a bad validation list."""
    command = f"data episodes pascal --root {VOC} --out list.json"
    damage = holds(f"{LISTS}/val.txt", content)
    return Case(name, "fss", tuple(command.split()), ("val.txt", *words), ("pascal",), damage)


def predicted(
    name: str, damage: Damage, *words: str, mask: str = "m.png", query: str = "q.jpg", more: str = ""
) -> Case:
    """Return a case of fss predict with files that are made for it."""
    command = f"predict --ckpt {CKPT} --support s.jpg {mask} --query {query} --out found.png {more}"

    def made(home: Path) -> None:
        for photo in ("s.jpg", "q.jpg"):
            Image.fromarray(make_image(1)).save(home / photo)
        Image.fromarray(255 * OBJECT).save(home / "m.png")
        damage(home)

    return Case(name, "fss", tuple(command.split()), words, ("run",), made)


def saved(name: str, make: Callable[[], Image.Image], **options: Any) -> Damage:
    """Save an image under a name, whatever the ending says."""

    def damage(home: Path) -> None:
        (home / name).unlink(missing_ok=True)
        make().save(home / name, **{"format": "PNG", **options})

    return damage


def turned(name: str, orientation: int) -> Damage:
    """Give an image an EXIF orientation."""

    def damage(home: Path) -> None:
        note = Image.Exif()
        note[0x0112] = orientation
        Image.fromarray(make_image(1)).save(home / name, exif=note)

    return damage


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.fromarray(255 * OBJECT))
    return image


def all_masks(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(home: Path) -> None:
        for path in (home / MASKS).iterdir():
            Image.fromarray(change(np.array(Image.open(path)))).save(path)

    return damage


def also(ending: str, format: str) -> Damage:
    """Save an image a second time beside itself."""
    return lambda home: Image.open(home / PHOTO).save((home / PHOTO).with_suffix(ending), format)


def renamed(ending: str) -> Damage:
    return lambda home: (home / PHOTO).rename((home / PHOTO).with_suffix(ending)) and None


def sixteen_bits(home: Path) -> None:
    mask = 300 * OBJECT.astype(np.uint16)
    mask[:9] = 700
    cv2.imwrite(str(home / "m.png"), mask)


def trimap() -> np.ndarray:
    mask = 255 * OBJECT
    mask[20:24, 30:90] = 128
    return mask


def soft(home: Path) -> None:
    Image.fromarray(cv2.GaussianBlur(255 * OBJECT, (9, 9), 3)).save(home / "m.png")


def speck(home: Path) -> None:
    image, mask = np.zeros((900, 1200, 3), np.uint8), np.zeros((900, 1200), np.uint8)
    mask[301:303, 401:403] = 255
    Image.fromarray(image).save(home / "s.jpg")
    Image.fromarray(mask).save(home / "m.png")


def small(home: Path) -> None:
    mask = np.zeros((65, 65), np.uint8)
    mask[34:37, 34:37] = 255
    Image.fromarray(make_image(1, (65, 65))).save(home / "s.jpg")
    Image.fromarray(mask).save(home / "m.png")


def palette(colours: list[int]) -> Callable[[], Image.Image]:
    def make() -> Image.Image:
        image = Image.fromarray(OBJECT)
        image.putpalette(colours)
        return image

    return make


def pages() -> Image.Image:
    return Image.fromarray(make_image(1))


STACK: dict[str, Any] = {"format": "TIFF", "save_all": True, "append_images": [pages()]}
MASK_STACK: dict[str, Any] = {**STACK, "append_images": [Image.fromarray(OBJECT)]}

LISTED = (
    listed("list of pairs that do not belong together", "JPEGImages/val_0001.jpg SegmentationClassAug/val_0002.png\n",
           "val_0001.jpg", "only a part", "one image id per line"),
    listed("list with remarks", "val_0001 cat\nval_0002 dog\n", "'val_0001 cat'", "only a part",
           "one image id per line"),
    listed("list of names with spaces", "my photo.jpg\n", "'my photo.jpg'", "only a part", "one image id per line"),
    listed("list of three columns", "val_0001.jpg val_0001.png 2\n", "only a part", "one image id per line"),
    listed("list in VOC's form with difficult images", "val_0001 1\nval_0002 0\n", "'val_0002 0'", "give them 1 or -1"),
    listed("list half in VOC's form", "val_0001 1\nval_0002\n", "'val_0002'", "an id and a number", "Allowed are"),
    listed("list in VOC's form without members", "val_0001 -1\nval_0002 -1\n", "every image with -1", "Allowed are"),
    listed("list of masks in another folder", "JPEGImages/val_0001.jpg SegmentationClass/val_0001.png\n",
           "SegmentationClass", "SegmentationClassAug", "data.masks"),
    listed("list in UTF-16", "val_0001\n".encode("utf-16"), "Cannot read", "UTF-8"),
    listed("list with one image under two endings", "val_0001.jpg\nval_0001.png\n", "val_0001 more than once",
           "Remove"),
    Case("list of HSNet", "fss", tuple(f"data episodes pascal --root {VOC} --out list.json".split()),
         ("val_0001__15", "missing", "HSNet", "sed"), ("pascal",), holds(f"{LISTS}/val.txt", "val_0001__15\n")),
)  # fmt: skip
READ = (
    voc("two images of one id", also(".png", "PNG"), "train_0003.jpg and train_0003.png", "Keep one"),
    voc("image with another ending", renamed(".bmp"), "train_0003", "(.jpg, .jpeg, .png) are missing", "id list"),
    voc("class names with the background", holds("data/shapes/classes.txt", "background\ncat\n"), "classes.txt",
        "background first", "Remove", needs=("shapes",)),
    voc("class names that repeat", holds("data/shapes/classes.txt", "cat\ncat\n"), "classes.txt", "cat more than once",
        "a name of its own", needs=("shapes",)),
    voc("mask that is a JPEG", saved(MASK, lambda: Image.fromarray(two_class_mask(4, 5)), format="JPEG"),
        "train_0003.png", "JPEG", "as PNG"),
    voc("mask with alpha", saved(MASK, lambda: with_alpha(Image.fromarray(OBJECT))), "train_0003.png", "mode LA",
        "8-bit grey and palette"),
    voc("mask of several pictures", saved(MASK, lambda: Image.fromarray(OBJECT), **MASK_STACK), "train_0003.png",
        "2 pictures", "as PNG"),
    voc("masks in black and white", all_masks(lambda m: np.where(m > 0, 255, 0).astype(np.uint8)), "0 and 255 alone",
        "class ids 1..20", "Convert"),
    voc("trimaps instead of masks", all_masks(lambda m: np.where(m > 0, 128, 255).astype(np.uint8)), "[128]", "1..20"),
    voc("image turned to and fro", lambda h: [turned(str(p), 3)(h) for p in (h / IMAGES).iterdir()] and None,
        "EXIF orientation 3", "not turned", "-auto-orient"),
    voc("images turned on the side of other size", lambda h: [
        (p.unlink(), saved(str(p), lambda: Image.fromarray(make_image(1, (90, 128))))(h)) for p in
        (h / IMAGES).iterdir()] and None, "90 x 128", "96 x 128", "must be equal"),
    voc("images with transparent pixels", lambda h: [saved(str(p), lambda: with_alpha(pages()))(h) for p in
        (h / IMAGES).iterdir()] and None, "The image data", "jpg has transparent pixels", "-flatten"),
)  # fmt: skip
SUPPORTED = (
    predicted("predict: mask of 16 bits with two values", sixteen_bits, "[0, 300, 700]", "--value"),
    predicted("predict: mask in the alpha channel", saved("m.png", lambda: with_alpha(Image.new("RGB", (WIDTH, HEIGHT),
              "white"))), "m.png", "transparent pixels", "-alpha extract"),
    predicted("predict: grey mask with alpha", saved("m.png", lambda: with_alpha(Image.new("L", (WIDTH, HEIGHT), 255))),
              "m.png", "transparent pixels", "-alpha extract"),
    predicted("predict: trimap", saved("m.png", lambda: Image.fromarray(trimap())),
              "[0, 128, 255]", "trimap", "--value"),
    predicted("predict: mask with soft edges", soft, "soft edges", "-threshold 50%"),
    predicted("predict: mask that is a JPEG", saved("m.jpg", lambda: Image.fromarray(255 * OBJECT), format="JPEG"),
              "m.jpg", "JPEG", "-threshold 50%", mask="m.jpg"),
    predicted("predict: mask that is a JPEG with a value", saved("m.jpg", lambda: Image.fromarray(255 * OBJECT),
              format="JPEG"), "m.jpg", "JPEG", "-threshold 50%", mask="m.jpg", more="--value 255"),
    predicted("predict: palette without black background", saved("m.png", palette([200, 0, 0, 0, 0, 0])),
              "black at 1", "--value"),
    predicted("predict: mask of real numbers", saved("m.png", lambda: Image.fromarray(OBJECT.astype(np.float32)),
              format="TIFF"), "m.png", "rounded", "8-bit grey PNG"),
    predicted("predict: object that vanishes", speck, "none is left", "65 x 65", "Crop"),
    predicted("predict: object between the points of the map", small, "feature map of 9 x 9", "Crop"),
    predicted("predict: support turned to and fro", turned("s.jpg", 3), "s.jpg", "EXIF orientation 3", "-auto-orient"),
    predicted("predict: mask of another size", saved("m.png", lambda: Image.fromarray(255 * OBJECT[1:])), "m.png",
              f"{WIDTH} x {HEIGHT - 1}", "must be equal"),
    predicted("predict: image with transparent pixels", saved("q.png", lambda: with_alpha(pages())), "q.png",
              "transparent pixels", "-flatten", query="q.png"),
    predicted("predict: image of several pictures", saved("q.tif", pages, **STACK), "q.tif", "2 pictures",
              "Save the one", query="q.tif"),
    predicted("predict: image of real numbers", saved("q.tif", lambda: Image.fromarray(OBJECT.astype(np.float32)),
              format="TIFF"), "q.tif", "32-bit", "8 or 16 bits", query="q.tif"),
    predicted("predict: over its own query", saved("found.png", pages), "found.png", "overwrite", "another --out",
              query="found.png"),
    predicted("predict: into a JPEG", lambda home: None, "found.jpg", ".png", more="--out found.jpg"),
)  # fmt: skip
