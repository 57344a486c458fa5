"""Classes and images of the shapes data set: scenes with masks, and single objects with a class label.

A class is a pair of shape and texture; each shape and each texture occurs in several classes, so neither alone
identifies the class. Every image is a pure function of (seed, split, number).
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fss.data.shapes.brushes import (
    Canvas,
    Mask,
    Sprite,
    degrade,
    draw_paints,
    draw_sprite,
    footprint,
    paste,
    plain_background,
    rough_background,
    scatter_clutter,
)

SceneSplit = Literal["train", "val"]
Objects = Literal["small", "large"]
"""Objects of 900 to 2400 pixels, 2 to 4 in a scene, or of 1800 to 4200 pixels, 2 or 3."""

VOID = 255
"""Label of outlines: a copy of ``fss.types.IGNORE``, whose import would load torch in every worker."""

_SHAPES = ("ring", "star", "cross", "crescent", "triangle", "heart", "square", "flower")
_TEXTURES = ("stripes", "dots", "checker", "zigzag", "target", "blotches", "plain")
_OTHER_SHAPES = ("disc", "arrow", "hexagon", "half_disc", "drop", "ell", "ring", "square")
_OTHER_TEXTURES = ("bricks", "waves", "speckle", "net", "stripes", "dots", "split")

CLASSES: tuple[tuple[str, str], ...] = tuple((_SHAPES[i % 8], _TEXTURES[i % 7]) for i in range(20))
"""Shape and texture of class id i + 1. Five consecutive ones (a fold) share neither."""

OTHER_CLASSES: tuple[tuple[str, str], ...] = tuple((_OTHER_SHAPES[i % 8], _OTHER_TEXTURES[i % 7]) for i in range(18))
"""Shape and texture of the classes for pre-training by classification, none of them in :data:`CLASSES`."""

_HUES = 6  # a class has one of six hues, each shared by three or four classes

_AREAS: dict[Objects, tuple[float, float]] = {"small": (900.0, 2400.0), "large": (1800.0, 4200.0)}
_MORE: dict[Objects, tuple[float, float, float]] = {"small": (0.45, 0.4, 0.15), "large": (0.7, 0.3, 0.0)}
"""Probabilities of one, two and three objects besides the main one."""

_SINGLE_SIDE = 64
_STREAMS = {"train": 0, "val": 1, "single_train": 2, "single_val": 3}


def class_name(pair: tuple[str, str]) -> str:
    """Return the name of a class, as in ``ring_stripes``."""
    return "_".join(pair)


def draw_scene(seed: int, split: SceneSplit, number: int, objects: Objects = "small") -> tuple[Mask, Mask]:
    """Draw image ``number`` of a split: objects in clutter.

    Args:
        seed: seed of the data set.
        split: train or val.
        number: position in the split.
        objects: their size.

    Returns:
        image: RGB, (H, W, 3), uint8.
        label: class ids 1 to 20, 0 background, 255 the outline of the objects, (H, W), uint8.
    """
    rng = np.random.default_rng([seed, _STREAMS[split], number])
    height, width = int(rng.integers(88, 113)), int(rng.integers(112, 145))
    canvas = rough_background(height, width, rng)
    scatter_clutter(canvas, rng)
    ground = canvas.mean(axis=(0, 1))
    placed: list[tuple[int, NDArray[np.bool_]]] = []
    for index in _choose_classes(seed, split, number, objects, rng):
        paints = draw_paints(rng, ground, hue=(index % _HUES) / _HUES)
        sprite = draw_sprite(*CLASSES[index], rng.uniform(*_AREAS[objects]), paints, rng)
        spot = _free_spot(canvas, sprite, [mask for _, mask in placed], rng)
        if spot is not None:
            paste(canvas, sprite, *spot)
            placed.append((index + 1, footprint(canvas.shape, sprite, *spot)))
    return degrade(canvas, rng), _label(placed, height, width)


def draw_single(seed: int, split: SceneSplit, index: int, number: int) -> Mask:
    """Draw image ``number`` of pre-training class ``index``: one object on a clean background.

    Args:
        seed: seed of the data set.
        split: train or val.
        index: position in :data:`OTHER_CLASSES`.
        number: position among the images of the class.

    Returns:
        image: RGB, (64, 64, 3), uint8.
    """
    rng = np.random.default_rng([seed, _STREAMS[f"single_{split}"], index, number])
    canvas = plain_background(_SINGLE_SIDE, _SINGLE_SIDE, rng)
    paints = draw_paints(rng, canvas.mean(axis=(0, 1)), hue=(index % _HUES) / _HUES)
    sprite = draw_sprite(*OTHER_CLASSES[index], rng.uniform(800.0, 2000.0), paints, rng)
    room = _SINGLE_SIDE - np.array(sprite.alpha.shape[::-1])
    x, y = (int(rng.integers(min(n, 0), max(n, 0) + 1)) for n in room)
    paste(canvas, sprite, x, y)
    return degrade(canvas, rng, strength=0.25)


def _choose_classes(seed: int, split: SceneSplit, number: int, objects: Objects, rng: np.random.Generator) -> list[int]:
    """Return the classes of the objects, back to front; the main one is stratified over 20 images."""
    turn = np.random.default_rng([seed, _STREAMS[split], number // 20, 20]).permutation(20)
    main = int(turn[number % 20])
    chosen = [main]
    for _ in range(int(rng.choice([1, 2, 3], p=_MORE[objects]))):
        draw = rng.random()
        if draw < 0.08:
            rivals = [main]
        elif draw < 0.15:
            rivals = [i for i in range(20) if i not in chosen and _akin(CLASSES[i], CLASSES[main])]
        else:
            rivals = [i for i in range(20) if i not in chosen]
        chosen.append(int(rng.choice(rivals)))
    return [int(i) for i in rng.permutation(chosen)]


def _akin(a: tuple[str, str], b: tuple[str, str]) -> bool:
    """Return whether two classes share their shape or their texture."""
    return a[0] == b[0] or a[1] == b[1]


def _free_spot(
    canvas: Canvas, sprite: Sprite, placed: list[NDArray[np.bool_]], rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return a position where the sprite leaves enough of every earlier object visible, or None."""
    height, width = sprite.alpha.shape
    total = float((sprite.alpha >= 0.5).sum())
    for _ in range(30):
        x = int(rng.integers(-6, max(canvas.shape[1] - width + 7, -5)))
        y = int(rng.integers(-6, max(canvas.shape[0] - height + 7, -5)))
        mask = footprint(canvas.shape, sprite, x, y)
        if mask.sum() < 0.85 * total:
            continue
        if all(_still_visible(i, mask, placed) for i in range(len(placed))):
            return x, y
    return None


def _still_visible(index: int, mask: NDArray[np.bool_], placed: list[NDArray[np.bool_]]) -> bool:
    """Return whether object ``index`` keeps 70 % of its pixels, and 300, under later ones and ``mask``."""
    left = placed[index] & ~mask
    for later in placed[index + 1 :]:
        left = left & ~later
    return int(left.sum()) >= max(300, 0.7 * int(placed[index].sum()))


def _label(placed: list[tuple[int, NDArray[np.bool_]]], height: int, width: int) -> Mask:
    """Paint the objects back to front, each with a void outline one pixel wide, (height, width)."""
    label = np.zeros((height, width), dtype=np.uint8)
    kernel = np.ones((3, 3), dtype=np.uint8)
    for class_id, mask in placed:
        label[cv2.dilate(mask.astype(np.uint8), kernel) > 0] = VOID
        label[mask] = class_id
    return label
