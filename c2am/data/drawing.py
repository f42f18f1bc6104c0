"""Shapes, textures and shading of the synthetic images.

Per-pixel arithmetic is `+ - * /`, floor, comparisons and square roots, which IEEE 754 rounds the
same everywhere, so that two machines draw the same pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np

Array = np.ndarray
Colour = tuple[int, int, int]

# Inside tests on coordinates u (right) and v (down) that span -1..1 across an object.
SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda u, v: u * u + v * v < 0.9,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.8,
    "triangle": lambda u, v: (v < 0.75) & (2 * abs(u) - v < 0.95),
    "star": lambda u, v: np.sqrt(abs(u)) + np.sqrt(abs(v)) < 1.15,
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.32) & (np.maximum(abs(u), abs(v)) < 0.95),
    "ring": lambda u, v: abs(u * u + v * v - 0.6) < 0.35,
    "hourglass": lambda u, v: (abs(u) < abs(v) + 0.12) & (abs(v) < 0.85),
    "bar": lambda u, v: (abs(u) < 0.42) & (abs(v) < 0.98),
    "hexagon": lambda u, v: np.maximum(abs(v), abs(u) * 0.866 + abs(v) / 2) < 0.85,
    "crescent": lambda u, v: (u * u + v * v < 0.95) & ((u - 0.45) * (u - 0.45) + v * v > 0.4),
    "corner": lambda u, v: (np.maximum(abs(u), abs(v)) < 0.85) & ((u < -0.2) | (v > 0.2)),
    "lens": lambda u, v: u * u / 0.25 + v * v < 0.95,
}


def _wave(t: Array) -> Array:
    """Triangle wave of period 1 between 0 and 1."""
    return abs(2 * (t - np.floor(t)) - 1)


def _checker(x: Array, y: Array) -> Array:
    return (np.floor(2 * x) + np.floor(2 * y)) % 2


def _bricks(x: Array, y: Array) -> Array:
    shifted = x / 2 + np.floor(y) / 2
    return np.where((y - np.floor(y) < 0.2) | (shifted - np.floor(shifted) < 0.12), 0.0, 1.0)


def _dots(x: Array, y: Array) -> Array:
    dx, dy = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
    return np.where(dx * dx + dy * dy < 0.1, 1.0, 0.0)


# Textures in 0..1 on coordinates counted in periods.
TEXTURES: tuple[Callable[[Array, Array], Array], ...] = (
    lambda x, y: _wave(x),
    lambda x, y: _wave(y),
    lambda x, y: _wave(x + y),
    _checker,
    _dots,
    _bricks,
    lambda x, y: _wave(y + 0.6 * _wave(x / 2)),
    lambda x, y: _wave(x) * _wave(y),
    lambda x, y: np.where(_wave(x - y) < 0.3, 1.0, 0.0),
    lambda x, y: np.where(_wave(x) < 0.25, 1.0, 0.3 * _wave(y)),
    lambda x, y: abs(_wave(x) - _wave(y)),
    lambda x, y: np.where(_wave(x + 0.5 * _wave(y)) < 0.5, 1.0, 0.0),
)


@dataclass(frozen=True)
class Material:
    """Two colours mixed by a texture."""

    dark: Colour
    light: Colour
    texture: int


OBJECTS = (
    Material((170, 30, 40), (235, 90, 80), 0),
    Material((40, 60, 160), (120, 150, 240), 4),
    Material((190, 140, 20), (250, 225, 110), 2),
    Material((120, 30, 140), (215, 130, 230), 3),
    Material((20, 110, 110), (120, 225, 215), 1),
    Material((150, 70, 20), (245, 160, 80), 7),
    Material((60, 60, 60), (225, 225, 225), 8),
    Material((150, 20, 90), (250, 150, 190), 9),
    Material((70, 110, 20), (190, 235, 90), 10),
    Material((30, 30, 90), (235, 215, 120), 6),
    Material((110, 50, 40), (130, 220, 250), 11),
    Material((20, 20, 20), (240, 90, 40), 5),
)
CONTEXTS = (
    Material((48, 96, 40), (104, 150, 70), 6),
    Material((52, 96, 130), (120, 165, 190), 1),
    Material((150, 128, 90), (200, 180, 135), 2),
    Material((118, 62, 50), (165, 105, 85), 5),
    Material((92, 72, 48), (140, 112, 78), 0),
    Material((84, 84, 92), (126, 126, 134), 7),
    Material((178, 184, 196), (226, 228, 232), 10),
    Material((60, 40, 84), (110, 86, 138), 3),
    Material((30, 44, 60), (74, 92, 104), 4),
    Material((128, 140, 60), (180, 184, 104), 9),
    Material((150, 92, 110), (198, 146, 150), 11),
    Material((24, 74, 68), (70, 120, 100), 8),
)

_ANGLES = tuple((round(cos(radians(a)), 6), round(sin(radians(a)), 6)) for a in range(-40, 41, 10))


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Array:
    """Bilinear interpolation of a `cells x cells` grid of uniform values, `(height, width)`."""
    grid = rng.random((cells + 1, cells + 1))
    y = np.arange(height)[:, None] * (cells / height)
    x = np.arange(width)[None, :] * (cells / width)
    iy, ix = y.astype(int), x.astype(int)
    fy, fx = y - iy, x - ix
    top = grid[iy, ix] * (1 - fx) + grid[iy, ix + 1] * fx
    bottom = grid[iy + 1, ix] * (1 - fx) + grid[iy + 1, ix + 1] * fx
    return top * (1 - fy) + bottom * fy


def paint(rng: np.random.Generator, material: Material, x: Array, y: Array, period: float) -> Array:
    """Colours of a material at pixel coordinates, `(h, w, 3)` float; phase and tone vary."""
    period *= 0.75 + 0.5 * rng.random()
    phase_x, phase_y = rng.random(2)
    mix = TEXTURES[material.texture](x / period + phase_x, y / period + phase_y)[..., None]
    tone = 0.85 + 0.3 * rng.random() + 0.12 * (rng.random(3) - 0.5)
    return (np.array(material.dark) * (1 - mix) + np.array(material.light) * mix) * tone


def frame(
    rng: np.random.Generator, height: int, width: int, centre: tuple[float, float], side: float
) -> tuple[Array, Array]:
    """Coordinates (u, v) of an object of `side` pixels around `centre` (y, x), turned a little."""
    cosine, sine = _ANGLES[rng.integers(len(_ANGLES))]
    y = (np.arange(height)[:, None] - centre[0]) * (2 / side)
    x = (np.arange(width)[None, :] - centre[1]) * (2 / side)
    return cosine * x + sine * y, cosine * y - sine * x


def shade(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Brightness of a curved surface under a light from a random side, `(h, w, 1)`."""
    cosine, sine = _ANGLES[rng.integers(len(_ANGLES))]
    light = (cosine * v + sine * u) * (1 if rng.random() < 0.5 else -1)
    return (1.05 - 0.25 * light - 0.15 * (u * u + v * v))[..., None]
