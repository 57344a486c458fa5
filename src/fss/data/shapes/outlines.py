"""Shape families of the shapes data set: outlines of unit area around the origin.

Each family is a function ``rng -> contours``; its random proportions vary within a class. Contours are filled by the
even-odd rule, so a second contour inside the first is a hole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Contours = list[NDArray[np.float64]]
Outline = Callable[[np.random.Generator], Contours]


def _arc(start: float, stop: float, radius: float = 1.0, points: int = 40) -> NDArray[np.float64]:
    angle = np.linspace(start, stop, points)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _polar(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = np.linspace(0.0, 2.0 * np.pi, len(radius), endpoint=False)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _points(*pairs: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(pairs, dtype=np.float64)


def ring(rng: np.random.Generator) -> Contours:
    """Return a disc with a round hole, list of contours (N, 2)."""
    return [_arc(0.0, 2 * np.pi), _arc(0.0, 2 * np.pi, rng.uniform(0.42, 0.54))]


def star(rng: np.random.Generator) -> Contours:
    """Return a five-pointed star, list of contours (N, 2)."""
    radius = np.ones(10)
    radius[1::2] = rng.uniform(0.42, 0.52)
    return [_polar(radius)]


def cross(rng: np.random.Generator) -> Contours:
    """Return a plus sign, list of contours (N, 2)."""
    a = rng.uniform(0.30, 0.38)
    quarter, turn = _points((a, 1.0), (a, a), (1.0, a)), np.array([[0.0, -1.0], [1.0, 0.0]])
    return [np.concatenate([quarter @ np.linalg.matrix_power(turn, n) for n in range(4)])]


def crescent(rng: np.random.Generator) -> Contours:
    """Return a moon: a disc less a shifted disc, list of contours (N, 2)."""
    tip = rng.uniform(0.95, 1.15)
    end = np.array([np.cos(tip), np.sin(tip)])
    centre, inner = end[0] + 0.15, float(np.hypot(0.15, end[1]))
    half = float(np.arctan2(end[1], -0.15))
    cut = _arc(-half, -(2 * np.pi - half), inner) + np.array([centre, 0.0])
    return [np.concatenate([_arc(tip, 2 * np.pi - tip), cut])]


def triangle(rng: np.random.Generator) -> Contours:
    """Return a triangle, list of contours (N, 2)."""
    return [_points((rng.uniform(-0.35, 0.35), -1.0), (0.95, 0.75), (-0.95, 0.75))]


def heart(rng: np.random.Generator) -> Contours:
    """Return a heart, list of contours (N, 2)."""
    t = np.linspace(0.0, 2 * np.pi, 60, endpoint=False)
    dent = rng.uniform(4.5, 6.0)
    y = 13 * np.cos(t) - dent * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([16 * np.sin(t) ** 3, -y - 2.0], axis=1)]


def square(rng: np.random.Generator) -> Contours:
    """Return a rectangle near a square, list of contours (N, 2)."""
    a = rng.uniform(0.8, 1.0)
    return [_points((-1.0, -a), (1.0, -a), (1.0, a), (-1.0, a))]


def flower(rng: np.random.Generator) -> Contours:
    """Return a blossom of five to seven round petals, list of contours (N, 2)."""
    petals = int(rng.integers(5, 8))
    angle = np.linspace(0.0, 2 * np.pi, 120, endpoint=False)
    depth = rng.uniform(0.36, 0.44)
    return [_polar(1.0 - depth * (1.0 - np.sqrt(np.abs(np.cos(petals * angle / 2.0)))))]


def disc(rng: np.random.Generator) -> Contours:
    """Return a disc, list of contours (N, 2)."""
    return [_arc(0.0, 2 * np.pi) * np.array([1.0, rng.uniform(0.85, 1.0)])]


def arrow(rng: np.random.Generator) -> Contours:
    """Return a block arrow, list of contours (N, 2)."""
    a, neck = rng.uniform(0.24, 0.34), rng.uniform(-0.1, 0.15)
    return [_points((-1, -a), (neck, -a), (neck, -0.8), (1, 0), (neck, 0.8), (neck, a), (-1, a))]


def hexagon(rng: np.random.Generator) -> Contours:
    """Return a hexagon, list of contours (N, 2)."""
    return [_polar(np.ones(6)) * np.array([1.0, rng.uniform(0.85, 1.0)])]


def half_disc(rng: np.random.Generator) -> Contours:
    """Return half a disc, list of contours (N, 2)."""
    bulge = rng.uniform(-0.2, 0.2)
    return [_arc(bulge, np.pi - bulge) - np.array([0.0, 0.42])]


def drop(rng: np.random.Generator) -> Contours:
    """Return a water drop, list of contours (N, 2)."""
    tip = rng.uniform(-1.9, -1.6)
    return [np.concatenate([_arc(-0.5, np.pi + 0.5), _points((0.0, tip))])]


def ell(rng: np.random.Generator) -> Contours:
    """Return a letter L, list of contours (N, 2)."""
    a = rng.uniform(-0.3, -0.1)
    return [_points((-1, -1), (a, -1), (a, -a), (1, -a), (1, 1), (-1, 1))]


OUTLINES: dict[str, Outline] = {
    f.__name__: f
    for f in (ring, star, cross, crescent, triangle, heart, square, flower, disc, arrow, hexagon, half_disc, drop, ell)
}
"""Shape families by name."""


def unit_outline(name: str, rng: np.random.Generator) -> Contours:
    """Draw an outline of a family, scaled to area 1.

    Args:
        name: a key of :data:`OUTLINES`.
        rng: source of the proportions.

    Returns:
        contours: list of (N, 2) arrays of x, y.
    """
    contours = OUTLINES[name](rng)
    areas = [_area(c) for c in contours]
    scale = 1.0 / np.sqrt(areas[0] - sum(areas[1:]))
    return [c * scale for c in contours]


def _area(contour: NDArray[np.float64]) -> float:
    x, y = contour[:, 0], contour[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2.0)
