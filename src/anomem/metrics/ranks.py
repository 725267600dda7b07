"""Ranks and ties, shared by image-level and pixel-level metrics."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Counts: TypeAlias = npt.NDArray[np.int64]


def mann_whitney(positive: Floats, sorted_negative: Floats) -> float:
    """Return the U statistic over n m, in whole numbers until the last division."""
    below = np.searchsorted(sorted_negative, positive, side="left")
    up_to = np.searchsorted(sorted_negative, positive, side="right")
    twice = int(below.sum(dtype=np.int64)) + int(up_to.sum(dtype=np.int64))
    return twice / (2 * positive.size * sorted_negative.size)


def last_of_ties(ranked: Floats) -> Counts:
    """Return the index of the last element of every run of equal values."""
    last = np.flatnonzero(ranked[1:] != ranked[:-1])
    return np.append(last, ranked.size - 1).astype(np.int64)


def floats(values: npt.ArrayLike) -> Floats:
    """Return single and double precision unchanged, anything else in double precision."""
    array = np.asarray(values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
