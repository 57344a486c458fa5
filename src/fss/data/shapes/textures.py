"""Texture families of the shapes data set: two-tone surfaces as functions of position.

Each family is a function ``(x, y, period, rng) -> t``: x and y are in pixels in the object's own frame, ``t`` in [0, 1]
mixes the two colours of the object. Angle and period vary within a class and are set by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Surface = Callable[[Field, Field, float, np.random.Generator], Field]


def _phase(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.0, 1.0))


def _wave(t: NDArray[Any]) -> Field:
    """Return a triangle wave of period 1 between -1 and 1, same shape."""
    return np.asarray(4.0 * np.abs(t - np.floor(t) - 0.5) - 1.0)


def _step(t: NDArray[Any], softness: float = 0.15) -> Field:
    """Return 0 below zero and 1 above, with a soft edge, same shape."""
    return np.asarray(np.clip(0.5 + t / (2.0 * softness), 0.0, 1.0))


def plain(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return one colour only, same shape as x."""
    return np.zeros_like(x)


def stripes(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return parallel bars, same shape as x."""
    return _step(_wave(x / period + _phase(rng)) + rng.uniform(-0.2, 0.2))


def dots(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return round spots on a staggered lattice, same shape as x."""
    period *= 1.15
    v = y / (0.87 * period) + _phase(rng)
    u = x / period + _phase(rng) + 0.5 * (np.floor(v) % 2)
    distance = np.hypot(u - np.floor(u) - 0.5, 0.87 * (v - np.floor(v) - 0.5))
    return _step((rng.uniform(0.29, 0.36) - distance) * 2.0)


def checker(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return a chequerboard, same shape as x."""
    period *= 1.2
    return _step(_wave(x / period + _phase(rng)) * _wave(y / period + _phase(rng)), 0.08)


def zigzag(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return chevron bars, same shape as x."""
    bend = 0.5 * _wave(y / (1.7 * period) + _phase(rng))
    return _step(_wave(x / period + bend + _phase(rng)) + rng.uniform(-0.15, 0.15))


def target(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return concentric rings around a point near the centre, same shape as x."""
    radius = np.hypot(x - rng.uniform(-3.0, 3.0), y - rng.uniform(-3.0, 3.0))
    return _step(_wave(radius / period + _phase(rng)))


def blotches(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return camouflage: thresholded smooth noise, same shape as x."""
    return _step(_noise(x, y, 1.7 * period, rng) + rng.uniform(-0.3, 0.3), 0.2)


def speckle(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return many small irregular specks, same shape as x."""
    return _step(_noise(x, y, 0.7 * period, rng) - 0.6, 0.2)


def bricks(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return a brick wall with thin joints, same shape as x."""
    v = y / period + _phase(rng)
    u = x / (2.0 * period) + _phase(rng) + 0.5 * (np.floor(v) % 2)
    joint = np.minimum(0.5 - np.abs(v - np.floor(v) - 0.5), 1.0 - 2.0 * np.abs(u - np.floor(u) - 0.5))
    return _step((joint - 0.14) * 2.0)


def waves(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return wavy bars, same shape as x."""
    bend = 0.45 * np.sin(y * (2.0 * np.pi / (2.4 * period)) + 6.3 * _phase(rng))
    return _step(_wave(x / period + bend + _phase(rng)))


def net(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return thin lines in two directions, same shape as x."""
    a, b = _wave(x / period + _phase(rng)), _wave(y / period + _phase(rng))
    return _step(np.maximum(a, b) - 0.55)


def split(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return two halves, same shape as x."""
    return _step((x - rng.uniform(-2.0, 2.0)) / 3.0)


def _noise(x: Field, y: Field, period: float, rng: np.random.Generator) -> Field:
    """Return a sum of ten waves of random directions, about unit variance, same shape as x."""
    total = np.zeros_like(x)
    for _ in range(10):
        angle, offset = rng.uniform(0.0, 2 * np.pi, 2)
        rate = 2 * np.pi / period * rng.uniform(0.6, 1.4)
        total += np.cos(
            x * np.float32(rate * np.cos(angle)) + y * np.float32(rate * np.sin(angle)) + np.float32(offset)
        )
    return total / np.float32(np.sqrt(5.0))


SURFACES: dict[str, Surface] = {
    f.__name__: f for f in (stripes, dots, checker, zigzag, target, blotches, plain, bricks, waves, speckle, net, split)
}
"""Texture families by name."""
