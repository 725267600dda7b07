"""Synthetic defects planted into images, with exact masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from anomem.errors import InputError
from anomem.runtime.images import resize_map
from anomem.types import BoolArray, FloatArray, UInt8Image

__all__ = ["DEFECTS", "VISIBLE", "plant"]

VISIBLE = 8
"""Minimum change of a defective pixel, in grey levels of 255."""

_Painted: TypeAlias = tuple[FloatArray, FloatArray]
"""Painted colours (H, W, 3), 0 to 255, and their opacity (H, W), 0 to 1."""

_EDGE = 0.2
"""Opacity below which the image is unchanged."""


def plant(image: UInt8Image, kind: str, rng: np.random.Generator, size: float = 0.22) -> tuple[UInt8Image, BoolArray]:
    """Plant a defect at a random place.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Image of at least 16 x 16 pixels; not modified.
    kind : {"scratch", "blob", "hole", "stain", "cutpaste"}
        A thin tapered line, an opaque lump, a dark pit with a lit rim, a translucent darkening, or
        a turned and shaded piece of the same image (as in CutPaste, Li et al., CVPR 2021).
    rng : numpy.random.Generator
    size : float
        Typical diameter relative to the shorter side, 0.02 to 0.6. Scratches are two to three
        times as long.

    Returns
    -------
    planted : ndarray of uint8, shape (H, W, 3)
    mask : ndarray of bool, shape (H, W)
        True exactly where ``planted`` differs from ``image``; there, at least one channel differs
        by `VISIBLE` levels or more. Never empty, never everything.

    Raises
    ------
    InputError
        Unknown kind, size out of range, or image that is too small or not (H, W, 3) uint8.
    """
    if kind not in _PAINTERS:
        raise InputError(f"no defect {kind!r}; choose one of {', '.join(DEFECTS)}")
    if not 0.02 <= size <= 0.6:
        raise InputError(f"size {size}; give 0.02 to 0.6")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 16:
        raise InputError(f"an image of shape {image.shape}, {image.dtype}; give (H, W, 3) uint8, 16 px or more")
    diameter = max(size * min(image.shape[:2]), 3.0)
    painted, opacity = _PAINTERS[kind](image.astype(np.float32), rng, diameter)
    return _commit(image, painted, opacity)


def _commit(image: UInt8Image, painted: FloatArray, opacity: FloatArray) -> tuple[UInt8Image, BoolArray]:
    """Blend the paint into the image, so that pixels change visibly inside the mask and not at all outside."""
    mask = opacity >= _EDGE
    old = image.astype(np.int16)
    blended = old + opacity[..., None] * (painted - old)
    new = np.rint(np.clip(blended, 0, 255)).astype(np.int16)
    change = new - old
    faint = mask & (np.abs(change).max(axis=2) < VISIBLE)
    direction = np.where(change.sum(axis=2) < 0, -1, 1)
    direction = np.where(old.max(axis=2) > 255 - VISIBLE, -1, direction)
    direction = np.where(old.max(axis=2) < VISIBLE, 1, direction)
    pushed = np.clip(old + VISIBLE * direction[..., None], 0, 255)
    new = np.where(faint[..., None], pushed, new)
    new = np.where(mask[..., None], new, old)
    return new.astype(np.uint8), mask


def _scratch(image: FloatArray, rng: np.random.Generator, diameter: float) -> _Painted:
    height, width = image.shape[:2]
    length = min(diameter * rng.uniform(2.0, 3.0), 0.8 * min(height, width))
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]])
    reach = length / 2 * np.abs(along)
    centre = _place(image, rng, float(reach[0]) + 2, float(reach[1]) + 2)
    t = np.linspace(-1, 1, max(int(4 * length), 16))
    bend, wobble = length * rng.uniform(-0.12, 0.12), 0.25 * np.cumsum(rng.normal(size=t.size))
    wobble -= np.linspace(wobble[0], wobble[-1], t.size)
    line = centre + np.outer(t * length / 2, along) + np.outer(bend * (1 - t**2), across)
    line += np.outer(np.clip(wobble, -1.5, 1.5), across)
    radius = max(diameter * rng.uniform(0.035, 0.06), 0.7) * np.sqrt(1 - 0.9 * t**2)
    opacity = _draw_line(line, radius, (height, width)) * rng.uniform(0.75, 0.95)
    level = _contrast(image, opacity >= _EDGE, rng, 60, 95)
    return np.full_like(image, level), opacity


def _draw_line(line: np.ndarray, radius: np.ndarray, size: tuple[int, int]) -> FloatArray:
    """Draw discs along a line at four times the resolution, and downsample."""
    fine = 4
    canvas = Image.new("L", (size[1] * fine, size[0] * fine))
    draw = ImageDraw.Draw(canvas)
    for (y, x), r in zip(line * fine, radius * fine, strict=True):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return np.asarray(canvas.reduce(fine), np.float32) / np.float32(255)


def _blob(image: FloatArray, rng: np.random.Generator, diameter: float) -> _Painted:
    depth, (slope_y, slope_x) = _shape(image, rng, diameter, roughness=0.22)
    opacity = _ramp(depth, 0.12)
    level = _contrast(image, opacity >= _EDGE, rng, 35, 65)
    # Light from the upper left on a lump with a rounded edge.
    light = -(slope_y + slope_x) * 22 * np.clip(1 - depth, 0, 1) ** 2
    grain = _noise(image, rng, 3.0) * 5
    return (level + light + grain)[..., None].repeat(3, axis=2), opacity


def _hole(image: FloatArray, rng: np.random.Generator, diameter: float) -> _Painted:
    depth, (slope_y, slope_x) = _shape(image, rng, 0.75 * diameter, roughness=0.3)
    opacity = _ramp(depth, 0.1)
    inside = image * rng.uniform(0.12, 0.3) + 8
    rim = np.clip(1 - depth / 0.3, 0, 1) * np.clip((slope_y + slope_x) * 0.9, -0.3, 1)
    lit = inside + rim[..., None] * 120
    return lit.astype(np.float32), opacity


def _stain(image: FloatArray, rng: np.random.Generator, diameter: float) -> _Painted:
    depth, _ = _shape(image, rng, 1.3 * diameter, roughness=0.28)
    opacity = _ramp(depth, 0.3)
    uneven = 1 + 0.18 * _noise(image, rng, diameter / 4)
    # A drying stain leaves a darker line near its edge.
    line = 1 - 0.16 * np.exp(-(((depth - 0.18) / 0.09) ** 2))
    return image * (rng.uniform(0.5, 0.66) * uneven * line)[..., None].astype(np.float32), opacity


def _cutpaste(image: FloatArray, rng: np.random.Generator, diameter: float) -> _Painted:
    height, width = image.shape[:2]
    aspect = np.exp(rng.uniform(np.log(0.5), np.log(2.0)))
    tall = int(np.clip(diameter * np.sqrt(aspect), 3, height * 0.6))
    wide = int(np.clip(diameter / np.sqrt(aspect), 3, width * 0.6))
    source_tall, source_wide = min(wide, height), min(tall, width)  # a quarter turn swaps them
    y, x = rng.integers(height - source_tall + 1), rng.integers(width - source_wide + 1)
    piece = np.rot90(image[y : y + source_tall, x : x + source_wide], rng.choice([1, 3]))
    tall, wide = piece.shape[:2]
    mean = piece.mean()
    shift = rng.uniform(20, 38) * rng.choice([-1, 1])
    shaded = (piece - mean) * rng.uniform(0.7, 1.25) + mean + shift
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    painted, opacity = image.copy(), np.zeros((height, width), np.float32)
    painted[top : top + tall, left : left + wide] = shaded
    opacity[top : top + tall, left : left + wide] = 1
    return painted, opacity


def _place(image: FloatArray, rng: np.random.Generator, reach_y: float, reach_x: float) -> np.ndarray:
    """Draw a centre at least the given reach from the border, or the middle if there is none."""
    height, width = image.shape[:2]
    y, x = min(reach_y, height / 2), min(reach_x, width / 2)
    return np.array([rng.uniform(y, height - y), rng.uniform(x, width - x)])


def _shape(
    image: FloatArray, rng: np.random.Generator, diameter: float, roughness: float
) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
    """Draw an irregular round shape.

    Returns its depth (H, W), 0 on the edge, 1 in the middle, negative outside; and the direction
    away from the middle (unit vectors, y and x).
    """
    height, width = image.shape[:2]
    reach = 0.8 * diameter
    centre = _place(image, rng, reach, reach)
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    y, x = y - centre[0], x - centre[1]
    distance = np.maximum(np.hypot(y, x), 1e-3)
    turn, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.5)
    u, v = y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)
    angle = np.arctan2(u, v)
    edge = np.ones_like(angle)
    for wave in range(2, 8):
        phase = rng.uniform(0, 2 * np.pi)
        edge += roughness * rng.uniform(0.3, 1) / wave * np.cos(wave * angle + phase)
    elongated = np.hypot(u * np.sqrt(stretch), v / np.sqrt(stretch))
    # The middle pixel belongs to the shape at any size.
    radius = np.maximum(edge * diameter / 2, 1.5)
    depth = 1 - elongated / radius
    return depth.astype(np.float32), (y / distance, x / distance)


def _ramp(depth: FloatArray, width: float) -> FloatArray:
    """Return the opacity of a shape, rising from 0 at its edge to 1 over ``width`` of its depth."""
    opacity: FloatArray = np.clip(depth / np.float32(width), 0, 1).astype(np.float32)
    return opacity


def _noise(image: FloatArray, rng: np.random.Generator, grain_px: float) -> FloatArray:
    """Return smooth noise (H, W) of mean 0 and standard deviation about 1, with spots of one size."""
    height, width = image.shape[:2]
    coarse = (max(int(height / grain_px), 2), max(int(width / grain_px), 2))
    return resize_map(rng.normal(size=coarse).astype(np.float32), (height, width)) * np.float32(1.5)


def _contrast(image: FloatArray, where: BoolArray, rng: np.random.Generator, least: float, most: float) -> float:
    """Draw a grey level that differs clearly from the covered pixels."""
    level = float(image[where].mean()) if where.any() else float(image.mean())
    step = rng.uniform(least, most)
    upwards = rng.random() < 0.5 if most < level < 255 - most else level < 128
    return float(np.clip(level + step if upwards else level - step, 0, 255))


_PAINTERS: dict[str, Callable[[FloatArray, np.random.Generator, float], _Painted]] = {
    "scratch": _scratch,
    "blob": _blob,
    "hole": _hole,
    "stain": _stain,
    "cutpaste": _cutpaste,
}

DEFECTS = tuple(_PAINTERS)
"""Kinds of defects for `plant`: scratch, blob, hole, stain, cutpaste."""
