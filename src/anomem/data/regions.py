"""Annotated images and regions of annotation tools."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from anomem.runtime.images import resize_mask
from anomem.runtime.limits import MAX_PIXELS
from anomem.types import BoolArray

__all__ = ["Annotated", "Region", "Runs", "drawn", "finite", "image_size", "merged"]

_MOST_CORNERS = 100_000


@dataclass(frozen=True)
class Runs:
    """Run-length encoded pixels of a rectangle, row by row: outside, inside, outside, ..."""

    left: int
    top: int
    height_width: tuple[int, int]
    lengths: tuple[int, ...]
    image: tuple[int, int]


@dataclass(frozen=True)
class Region:
    """Labelled region.

    Parameters
    ----------
    word : str
        Its label.
    polygon : tuple of (float, float)
        Its corners (x, y) as fractions of the image's width and height.
    runs : Runs, optional
        Its pixels.
    """

    word: str
    polygon: tuple[tuple[float, float], ...] = ()
    runs: Runs | None = None

    def __post_init__(self) -> None:
        if len(self.polygon) > _MOST_CORNERS:
            raise ValueError(f"a polygon of {len(self.polygon):,} corners, at most {_MOST_CORNERS:,} are read")

    @property
    def has_area(self) -> bool:
        """True if the region's pixels are known; a box or a brush stroke labels an image without a mask."""
        return len(self.polygon) > 2 or self.runs is not None


@dataclass(frozen=True)
class Annotated:
    """Image of an export.

    Parameters
    ----------
    where : str
        File and entry, for errors.
    written : str
        Path or address of the image as the export has it.
    words : tuple of str
        Labels of the whole image.
    regions : tuple of Region
        Labelled regions.
    height_width : (int, int), optional
        Size of the image as the export has it.
    """

    where: str
    written: str
    words: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    height_width: tuple[int, int] | None = None

    def with_those_of(self, other: Annotated) -> Annotated:
        """Return the image with the annotations of both."""
        words = tuple(dict.fromkeys((*self.words, *other.words)))
        size = self.height_width or other.height_width
        return replace(self, words=words, regions=(*self.regions, *other.regions), height_width=size)


def merged(images: Iterable[Annotated]) -> list[Annotated]:
    """Join the annotations of each image, which may come from several annotators or tasks."""
    by_image: dict[str, Annotated] = {}
    for image in images:
        known = by_image.get(image.written)
        by_image[image.written] = image if known is None else known.with_those_of(image)
    return list(by_image.values())


def finite(value: Any) -> float:
    """Return a finite number; ValueError for anything else."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{str(value)[:40]} is no number")
    return number


def image_size(height: Any, width: Any) -> tuple[int, int]:
    """Return the size of an image as an export has it; ValueError for an impossible one or one beyond the limit."""
    size = (int(finite(height)), int(finite(width)))
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"size {size[1]} x {size[0]}")
    return size


def drawn(region: Region, height_width: tuple[int, int]) -> BoolArray:
    """Return a mask of the given size with the region, (H, W) bool."""
    if region.runs is not None:
        return _unrolled(region.runs, height_width)
    mask = _filled(np.asarray(region.polygon) * height_width[::-1], height_width)
    if not mask.any():  # thinner than a pixel
        row, column = (np.asarray(region.polygon[0])[::-1] * height_width).clip(0, np.asarray(height_width) - 1)
        mask[int(row), int(column)] = True
    return mask


def _filled(corners: npt.NDArray[np.float64], height_width: tuple[int, int]) -> BoolArray:
    """Fill the pixels with centres inside a polygon, by the even-odd rule; corners (N, 2) are x, y in pixels."""
    height, width = height_width
    mask = np.zeros(height_width, dtype=bool)
    corners = corners.clip(-1e6, 1e6)
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    first, last = max(int(y0.min()), 0), min(int(np.ceil(y0.max())), height)
    for row in range(first, last):
        y = row + 0.5
        crossed = (y0 <= y) != (y1 <= y)
        share = (y - y0[crossed]) / (y1 - y0)[crossed]
        edges = np.sort(x0[crossed] + share * (x1 - x0)[crossed])
        columns = np.ceil(edges - 0.5).clip(0, width).astype(int)
        for start, end in zip(columns[::2], columns[1::2], strict=True):
            mask[row, start:end] = True
    return mask


def _unrolled(runs: Runs, height_width: tuple[int, int]) -> BoolArray:
    height, width = runs.height_width
    inside = np.arange(len(runs.lengths)) % 2 == 1
    pixels = np.repeat(inside, runs.lengths).reshape(height, width)
    mask = np.zeros(runs.image, dtype=bool)
    mask[runs.top : runs.top + height, runs.left : runs.left + width] = pixels
    return mask if runs.image == height_width else resize_mask(mask, height_width)
