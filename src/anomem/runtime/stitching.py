"""Stitching: maps of an image's inputs, added in order, to one map in the image's own frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from anomem.types import BoolArray, Box, FloatArray

__all__ = ["Stitching", "shares"]

Weights = dict[int, npt.NDArray[np.float64]]
"""Start of a tile along one axis -> its weight in each of its pixels."""


class Stitching:
    """Map of one image, to which the maps of its inputs are added in order.

    Beside the map only the rows of one row of tiles are held, so that memory does not grow with the number of tiles.

    Parameters
    ----------
    height_width : (int, int)
        Size of the image.
    boxes : sequence of Box
        Parts of the image that are inputs, row by row.
    weights : (Weights, Weights)
        Weights of the tiles down and across; see `shares`.
    to_box : callable
        Function from an input's map and its box to the map at the box's size.
    roi : ndarray of bool, shape (H, W), optional
        Region of interest.
    """

    def __init__(
        self,
        height_width: tuple[int, int],
        boxes: Sequence[Box],
        weights: tuple[Weights, Weights],
        to_box: Callable[[FloatArray, Box], FloatArray],
        roi: BoolArray | None,
    ) -> None:
        self._hw, self._boxes, self._weights, self._to_box, self._roi = height_width, boxes, weights, to_box, roi
        self._whole: FloatArray | None = None
        self._only: FloatArray | None = None  # map of an image without tiles, resized when it is asked for
        # float64, so that a constant comes out as exactly the same float32.
        self._band = np.zeros((0, height_width[1]), np.float64)
        self._top, self._added = 0, 0

    @property
    def missing(self) -> int:
        """Number of maps that are still to be added."""
        return len(self._boxes) - self._added

    def add(self, maps: Iterable[FloatArray]) -> None:
        """Add the maps (h, w) of the next inputs."""
        for values in maps:
            box = self._boxes[self._added]
            self._added += 1
            if (box.height, box.width) == self._hw:
                self._only = values
                continue
            self._move_to(box)
            share = self._weights[0][box.top][:, None] * self._weights[1][box.left][None, :]
            self._band[: box.height, box.left : box.left + box.width] += share * self._to_box(values, box)

    def result(self) -> FloatArray:
        """Return the map, (H, W) float32; outside the region of interest, the smallest value inside it."""
        whole = self._finish(len(self._band)) if self._only is None else self._to_box(self._only, self._boxes[0])
        if self._roi is not None:
            whole[~self._roi] = whole[self._roi].min()
        return whole

    def _move_to(self, box: Box) -> None:
        """Finish the rows above a box, and make its own the first of the band."""
        done = box.top - self._top
        if done == 0 and len(self._band):
            return
        self._finish(min(done, len(self._band)))
        fresh = np.zeros((box.height - len(self._band), self._hw[1]), np.float64)
        self._band, self._top = np.concatenate([self._band, fresh]), box.top

    def _finish(self, count: int) -> FloatArray:
        """Round the first rows of the band to their place; return the whole map."""
        if self._whole is None:
            self._whole = np.zeros(self._hw, np.float32)
        self._whole[self._top : self._top + count] = self._band[:count]
        self._band, self._top = self._band[count:], self._top + count
        return self._whole


def shares(
    spans: tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]], height_width: tuple[int, int], overlap: int
) -> tuple[Weights, Weights]:
    """Return the weights of each tile in each of its pixels, down and across.

    The weights at a pixel add up to 1 over all tiles of an axis. Tiles left out do not matter: they have no pixel in
    the region of interest.

    Parameters
    ----------
    spans : (sequence, sequence)
        Start and extent of the tiles along each axis.
    height_width : (int, int)
        Size of the image.
    overlap : int
        Pixels that neighbouring tiles share.
    """
    down, across = (_shares(part, side, overlap) for part, side in zip(spans, height_width, strict=True))
    return down, across


def _shares(spans: Sequence[tuple[int, int]], length: int, overlap: int) -> Weights:
    ramp = _rising(overlap)
    weights = {}
    total = np.zeros(length)
    for start, extent in spans:
        weight = np.ones(extent)
        if start > 0:
            weight[: len(ramp)] *= ramp
        if start + extent < length:
            weight[extent - len(ramp) :] *= ramp[::-1]
        weights[start] = weight
        total[start : start + extent] += weight
    return {start: weights[start] / total[start : start + extent] for start, extent in spans}


def _rising(count: int) -> npt.NDArray[np.float64]:
    """Return a sin^2 ramp, positive everywhere, which adds up to 1 with its mirror image."""
    return np.asarray(np.sin(0.5 * math.pi * (np.arange(count) + 0.5) / max(count, 1)) ** 2)
