"""Near-duplicates among images: bursts, frames of a video, augmented copies."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from anomem.errors import ImageError
from anomem.runtime.images import resize
from anomem.runtime.sources import ImageSource
from anomem.types import FloatArray, Record

__all__ = ["ALIKE_BELOW", "alike_groups", "find_alike"]

ALIKE_BELOW = 0.1
"""Distance (1 - correlation of thumbnails) below which two images are near-duplicates."""

_SIDE = 64
_BLUR = 8
_COARSE = 16
_COARSE_ABOVE = 1 - 3 * ALIKE_BELOW
_BLOCK = 512
_PAIRS = 2048
_ROUNDS = 3

_Change: TypeAlias = Callable[[FloatArray], FloatArray]


def find_alike(source: ImageSource, *, workers: int | None = None) -> Generator[Record, None, list[int]]:
    """Group near-duplicate images; yields progress.

    Images are compared as high-pass filtered grey thumbnails of 64 x 64 pixels, flipped and turned to where they
    resemble their mean most, which is subtracted, so that images of similar parts in the same place are no duplicates,
    also if some of them were flipped or turned. Two images are near-duplicates if
    their correlation exceeds 0.9, also after a flip, a quarter turn or a shift of a 64th. Groups are transitive.

    Parameters
    ----------
    source : ImageSource
        Images; each unreadable one forms a group of its own.
    workers : int, optional
        Number of decoding threads; 4 by default.

    Returns
    -------
    list of int
        Group number per image, from 0 in the order of appearance.
    """
    n = len(source)
    thumbnails = np.zeros((n, _SIDE, _SIDE), np.float32)
    with ThreadPoolExecutor(max(workers or 4, 1)) as pool:
        for done, thumbnail in enumerate(pool.map(lambda i: _thumbnail(source, i), range(n)), start=1):
            thumbnails[done - 1] = thumbnail
            yield Record("alike", done, n)
    return alike_groups(thumbnails)


def alike_groups(thumbnails: FloatArray) -> list[int]:
    """Return the (N,) group numbers of thumbnails, (N, 64, 64) float32, grouped by near-duplicates."""
    parent = list(range(len(thumbnails)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for one, other in _pairs(thumbnails):
        a, b = sorted((root(one), root(other)))
        parent[b] = a
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(thumbnails))]


def _thumbnail(source: ImageSource, i: int) -> FloatArray:
    """Return image i as a high-pass filtered thumbnail; zeros if it cannot be read."""
    try:
        grey = resize(source.load(i), (_SIDE, _SIDE)).astype(np.float32).mean(2)
    except ImageError:
        return np.zeros((_SIDE, _SIDE), np.float32)
    return np.asarray(grey - _blurred(_blurred(grey, 0), 1), np.float32)


def _blurred(grey: FloatArray, axis: int) -> FloatArray:
    reach = 3 * _BLUR
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _BLUR) ** 2)
    padding = [(reach, reach) if side == axis else (0, 0) for side in (0, 1)]
    padded = np.pad(grey, padding, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis)
    return np.asarray(windows @ (kernel / kernel.sum()).astype(np.float32), np.float32)


def _pairs(thumbnails: FloatArray) -> Iterator[tuple[int, int]]:
    """Yield pairs of near-duplicate images."""
    n = len(thumbnails)
    if n < 2:
        return
    thumbnails, mean = _upright(_unit(thumbnails))
    still, coarse_still = _described(thumbnails, mean)
    for change in _CHANGES:
        moved, coarse_moved = _described(change(thumbnails), mean)
        for start in range(0, n, _BLOCK):
            close = coarse_still[start : start + _BLOCK] @ coarse_moved.T > _COARSE_ABOVE
            rows, columns = np.nonzero(close)
            rows, columns = rows[rows + start != columns] + start, columns[rows + start != columns]
            for at in range(0, len(rows), _PAIRS):
                one, other = rows[at : at + _PAIRS], columns[at : at + _PAIRS]
                alike = np.einsum("nd,nd->n", still[one], moved[other]) > 1 - ALIKE_BELOW
                yield from zip(one[alike].tolist(), other[alike].tolist(), strict=True)


def _upright(thumbnails: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Turn thumbnails to where they resemble their mean most; return them with the mean.

    A flipped or turned copy becomes its original, so the mean is that of the parts, whatever copies there are.
    """
    mean = thumbnails[np.argmax(np.einsum("nij,ij->n", thumbnails, thumbnails.mean(0)))]
    upright = thumbnails
    for _ in range(_ROUNDS):
        likeness = [np.einsum("nij,ij->n", turn(thumbnails), mean) for turn in _TURNS]
        best = np.argmax(likeness, axis=0)
        upright = np.empty_like(thumbnails)
        for number, turn in enumerate(_TURNS):
            upright[best == number] = turn(thumbnails[best == number])
        mean = upright.mean(0)
    return upright, mean


def _turned(quarters: int, *, flip: bool) -> _Change:
    return lambda t: np.rot90(t, quarters, axes=(1, 2))[:, :, :: -1 if flip else 1]


def _shifted(by: tuple[int, int]) -> _Change:
    return lambda t: np.roll(t, by, axis=(1, 2))


_TURNS = [_turned(quarters, flip=flip) for flip in (False, True) for quarters in range(4)]
"""Flips and turns by right angles, the identity first."""

_CHANGES = [*_TURNS, *(_shifted((dy, dx)) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)]
"""Changes after which two images are compared; shifts are by one position."""


def _described(thumbnails: FloatArray, mean: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return centred thumbnails as unit vectors, (N, 4096), and their coarse versions, (N, 256)."""
    rest = thumbnails - mean
    step = _SIDE // _COARSE
    coarse = rest.reshape(len(rest), _COARSE, step, _COARSE, step).mean((2, 4))
    return _unit(rest).reshape(len(rest), -1), _unit(coarse).reshape(len(rest), -1)


def _unit(thumbnails: FloatArray) -> FloatArray:
    """Scale each thumbnail to mean 0 and length 1; a constant one becomes zeros."""
    centred = thumbnails - thumbnails.mean((1, 2), keepdims=True)
    length = np.sqrt((centred**2).sum((1, 2), keepdims=True))
    scaled: npt.NDArray[np.float32] = np.where(length > 1e-3, centred / np.maximum(length, 1e-3), 0)
    return scaled.astype(np.float32)
