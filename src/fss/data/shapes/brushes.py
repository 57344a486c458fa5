"""Drawing functions of the shapes data set: objects, backgrounds, clutter and camera faults.

Canvases are RGB, (H, W, 3), float32, in 0..255. The results depend only on the arguments and the state of ``rng``.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fss.data.shapes.outlines import unit_outline
from fss.data.shapes.textures import SURFACES

Canvas = NDArray[np.float32]
Mask = NDArray[np.uint8]
Colour = NDArray[np.float32]
Paints = tuple[Colour, Colour]

_SUPER = 4
"""Supersampling factor of outlines, per axis."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass
class Sprite:
    """One drawn object in a small window.

    Attributes:
        alpha: coverage of each pixel in [0, 1], (h, w).
        colour: RGB, (h, w, 3).
    """

    alpha: NDArray[np.float32]
    colour: Canvas


def draw_sprite(shape: str, texture: str, area: float, paints: Paints, rng: np.random.Generator) -> Sprite:
    """Draw an object with random rotation, aspect, texture angle, texture period and lighting.

    Args:
        shape: a key of :data:`fss.data.shapes.outlines.OUTLINES`.
        texture: a key of :data:`fss.data.shapes.textures.SURFACES`.
        area: its area in pixels.
        paints: its two colours, (3,) each.
        rng: source of all other values.

    Returns:
        sprite: alpha (h, w) and colour (h, w, 3), cropped to the object with a margin of two pixels.
    """
    aspect, angle, mirror = np.sqrt(rng.uniform(0.75, 1.33)), rng.uniform(0.0, 2 * np.pi), rng.choice([-1.0, 1.0])
    size = np.sqrt(area)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    transform = rotation @ np.diag([mirror * size * aspect, size / aspect])
    contours = [c @ transform.T for c in unit_outline(shape, rng)]
    corner = np.floor(contours[0].min(axis=0)) - 2
    width, height = (int(n) for n in np.ceil(contours[0].max(axis=0)) + 3 - corner)
    alpha = _fill([c - corner for c in contours], width, height)
    grid = (np.arange(2 * width, dtype=np.float32) + 0.5) / 2 + np.float32(corner[0])
    rows = (np.arange(2 * height, dtype=np.float32) + 0.5) / 2 + np.float32(corner[1])
    x, y = np.meshgrid(grid, rows)
    twist = np.float32(rng.uniform(0.0, 2 * np.pi))
    u, v = np.cos(twist) * x + np.sin(twist) * y, np.cos(twist) * y - np.sin(twist) * x
    period = rng.uniform(5.5, 9.0) * np.clip(size / 28.0, 0.85, 1.25)
    mix = cv2.resize(SURFACES[texture](u, v, period, rng), (width, height), interpolation=cv2.INTER_AREA)[..., None]
    colour = paints[0] * (1 - mix) + paints[1] * mix
    return Sprite(alpha, (colour * _lighting(height, width, rng, 0.3)).astype(np.float32))


def _fill(contours: list[NDArray[np.float64]], width: int, height: int) -> NDArray[np.float32]:
    """Return the coverage of even-odd filled contours, (height, width)."""
    fine = np.zeros((height * _SUPER, width * _SUPER), dtype=np.uint8)
    fixed = [np.round((c * _SUPER - 0.5) * 16).astype(np.int32) for c in contours]
    cv2.fillPoly(fine, fixed, (255,), lineType=cv2.LINE_8, shift=4)
    coverage = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return coverage.astype(np.float32) / np.float32(255)


def _lighting(height: int, width: int, rng: np.random.Generator, strength: float) -> Canvas:
    """Return a linear shading factor around 1, (height, width, 1)."""
    angle, gain = rng.uniform(0, 2 * np.pi), rng.uniform(0, strength)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    ramp = np.float32(np.cos(angle)) * x[None, :] + np.float32(np.sin(angle)) * y[:, None]
    return (1 + np.float32(gain) * ramp)[..., None].astype(np.float32)


def paste(canvas: Canvas, sprite: Sprite, x: int, y: int) -> None:
    """Paint a sprite onto the canvas in place, clipped at the border.

    Args:
        canvas: (H, W, 3).
        sprite: the object.
        x: column of the sprite's left edge, may be negative.
        y: row of its upper edge, may be negative.
    """
    target, part = _overlap(canvas.shape, sprite, x, y)
    alpha = sprite.alpha[part][..., None]
    canvas[target] = canvas[target] * (1 - alpha) + sprite.colour[part] * alpha


def footprint(shape: tuple[int, ...], sprite: Sprite, x: int, y: int) -> NDArray[np.bool_]:
    """Return the pixels of a canvas of ``shape`` that the sprite covers at least half, (H, W)."""
    mask = np.zeros(shape[:2], dtype=bool)
    target, part = _overlap(shape, sprite, x, y)
    mask[target] = sprite.alpha[part] >= 0.5
    return mask


def _overlap(shape: tuple[int, ...], sprite: Sprite, x: int, y: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the windows of the canvas and of the sprite in which they overlap."""
    h, w = sprite.alpha.shape
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + h, shape[0]), min(x + w, shape[1])
    return (slice(top, bottom), slice(left, right)), (slice(top - y, bottom - y), slice(left - x, right - x))


def random_colour(rng: np.random.Generator) -> Colour:
    """Draw a colour of any hue, from dull to saturated, (3,) in 0..255."""
    hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.1, 1.0), rng.uniform(50, 250)
    steps = np.clip(np.abs((hue - np.array([0.0, 2.0, 4.0]) + 3) % 6 - 3) - 1, 0, 1)
    return np.asarray(value * (1 - saturation * steps), dtype=np.float32)


def draw_paints(rng: np.random.Generator, ground: Colour, hue: float | None = None, contrast: float = 60.0) -> Paints:
    """Draw the two colours of an object: distinct from each other, the first also from the background.

    Args:
        rng: random generator.
        ground: mean colour behind the object, (3,).
        hue: hue of the first colour, in [0, 1), met within 0.03; None draws any.
        contrast: minimum luma difference of the two, in 0..255.

    Returns:
        pair: two colours, (3,) each.
    """
    while True:
        first = random_colour(rng) if hue is None else _tint(rng, hue)
        second = random_colour(rng)
        visible = np.abs(first - ground).max() > 45
        if visible and abs(float((first - second) @ _LUMA)) > contrast:
            return first, second


def _tint(rng: np.random.Generator, hue: float) -> Colour:
    """Draw a strong colour of about one hue, (3,)."""
    near = (hue + rng.uniform(-0.03, 0.03)) % 1.0
    return np.array(colorsys.hsv_to_rgb(near, rng.uniform(0.65, 1.0), rng.uniform(0.55, 1.0)), dtype=np.float32) * 255


def plain_background(height: int, width: int, rng: np.random.Generator) -> Canvas:
    """Draw one colour with a slight gradient, (height, width, 3)."""
    return np.asarray(random_colour(rng) * _lighting(height, width, rng, 0.25), dtype=np.float32)


def rough_background(height: int, width: int, rng: np.random.Generator) -> Canvas:
    """Draw noise of several scales between two colours, often with faint stripes, (height, width, 3)."""
    first = random_colour(rng)
    second = first + rng.normal(0.0, 40.0, 3).astype(np.float32)
    field = np.zeros((height, width), dtype=np.float32)
    for cell in (48, 20, 9, 4):
        coarse = rng.normal(0.0, 1.0, (height // cell + 2, width // cell + 2)).astype(np.float32)
        noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        field += np.float32(rng.uniform(0.1, 0.6)) * noise
    if rng.random() < 0.5:
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 24)
        field += np.float32(rng.uniform(0.2, 0.5)) * np.sin(
            (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) * np.float32(2 * np.pi / period)
        )
    mix = np.clip(0.5 + 0.45 * field, 0, 1)[..., None]
    canvas = (first * (1 - mix) + second * mix) * _lighting(height, width, rng, 0.3)
    return np.asarray(np.clip(canvas, 0, 255), dtype=np.float32)


def scatter_clutter(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint thin lines and small blobs that belong to no class, in place.

    Args:
        canvas: (H, W, 3).
        rng: source of number, position and colour.
    """
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(2, 7))):
        ends = np.round(rng.uniform(-8, 8 + max(height, width), (2, 2)) * 16).astype(int)
        colour = tuple(float(c) for c in random_colour(rng))
        cv2.line(canvas, ends[0].tolist(), ends[1].tolist(), colour, 1 + int(rng.random() < 0.3), cv2.LINE_8, 4)
    for _ in range(int(rng.integers(3, 10))):
        colour = tuple(float(c) for c in random_colour(rng))
        blob = _polygon(rng) * rng.uniform(2.0, 5.5) + rng.uniform(0, 1, 2) * np.array([width, height])
        cv2.fillPoly(canvas, [np.round(blob * 16).astype(np.int32)], colour, cv2.LINE_8, 4)


def _polygon(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return an irregular polygon of radius about 1, (N, 2)."""
    count = int(rng.integers(4, 9))
    angle = (np.arange(count) + rng.uniform(0, 0.8, count)) * (2 * np.pi / count)
    return np.asarray(rng.uniform(0.6, 1.2, (count, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def degrade(canvas: Canvas, rng: np.random.Generator, strength: float = 1.0) -> Mask:
    """Apply blur, contrast, brightness and sensor noise.

    Args:
        canvas: (H, W, 3).
        rng: random generator.
        strength: 0 leaves the image unchanged, 1 is a poor camera.

    Returns:
        image: (H, W, 3), uint8.
    """
    if rng.random() < 0.5 * strength:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (5, 5), rng.uniform(0.4, 0.9)), dtype=np.float32)
    gain = 1 + strength * rng.uniform(-0.4, 0.1)
    offset = strength * rng.uniform(-20, 20) + 110 * (1 - gain)
    sigma = strength * rng.uniform(2, 12)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(np.round(canvas * np.float32(gain) + np.float32(offset) + noise), 0, 255).astype(np.uint8)
