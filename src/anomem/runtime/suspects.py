"""Suspects: normals of a fit whose score, by a model without them, is extreme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

__all__ = ["EXPECTED", "Suspect", "find_suspects", "tail_probability"]

EXPECTED = 0.5
"""Number of suspects expected among clean normals, at most, where their upper half has an exponential tail."""

_HIGH = 0.85
"""Quantile that, with the median, sets the tail's scale: defects among the normals, if fewer, do not move it."""


class Suspect(TypedDict):
    """One suspect: path (or position) of the image, out-of-sample score, p-value among the other normals."""

    path: str
    score: float
    p_value: float


def find_suspects(names: Sequence[str], scores: npt.ArrayLike) -> tuple[Suspect, ...]:
    """Find normals with an extreme score, worst first.

    An image is a suspect if fewer than :data:`EXPECTED` of all n images would score as high under the exponential tail
    that runs through the median and the 85 % quantile of the scores. Tails of normal images are mostly lighter: fewer
    are found then.

    Parameters
    ----------
    names : sequence of str
        Name of each image, (n,).
    scores : array_like of float
        Out-of-sample scores, (n,).

    Examples
    --------
    >>> find_suspects(["a", "b", "c", "d", "e", "f"], [1.0, 1.1, 1.2, 1.3, 1.4, 9.0])[0]["path"]
    'f'
    """
    values = np.asarray(scores, dtype=np.float64)
    expected = len(values) * tail_probability(values)
    others = np.sort(values)
    chosen = [int(i) for i in np.argsort(-values, kind="stable") if expected[i] < EXPECTED]
    at_least = len(values) - np.searchsorted(others, values, "left")
    return tuple(
        Suspect(path=names[i], score=float(values[i]), p_value=float(at_least[i] / len(values))) for i in chosen
    )


def tail_probability(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the probability of each score or a higher one under the exponential tail, 0.5 below the median."""
    median, high = np.quantile(scores, (0.5, _HIGH))
    scale = (high - median) / math.log(0.5 / (1 - _HIGH))
    if scale <= 0:
        return np.where(scores > median, 0.0, 0.5)
    return np.asarray(0.5 * np.exp(-np.maximum(scores - median, 0) / scale))
