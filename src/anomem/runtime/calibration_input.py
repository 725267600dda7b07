"""Calibration scores by group: checks, numbers, and the p-value of a group."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError
from anomem.runtime.strata import Strata
from anomem.types import FloatArray, IntArray

__all__ = [
    "check_strata",
    "checked_groups",
    "checked_scores",
    "counted",
    "fewest_units",
    "finite_scores",
    "group_numbers",
    "maximum_p_value",
    "scores_by_group",
]

_MOST_GROUPED = 100_000


def group_numbers(groups: Sequence[Hashable | None]) -> IntArray:
    """Return group numbers from 0 in the order of appearance; each None is a group of its own.

    Examples
    --------
    >>> group_numbers(["b", None, "a", "b", None]).tolist()
    [0, 1, 2, 0, 3]
    """
    known: dict[Hashable, int] = {}
    keys = [("alone", i) if group is None else ("group", group) for i, group in enumerate(groups)]
    return np.asarray([known.setdefault(key, len(known)) for key in keys], dtype=np.intp)


def checked_groups(groups: IntArray | None, n: int) -> IntArray | None:
    """Return read-only group numbers in the order of appearance; None if every group is one score."""
    if groups is None:
        return None
    if groups.shape != (n,) or groups.dtype.kind not in "iu" or n > _MOST_GROUPED:
        raise InputError(f"calibration groups must be whole numbers of shape ({n},), at most {_MOST_GROUPED:,}")
    numbers = group_numbers(groups.tolist())
    if int(numbers.max()) + 1 == n:
        return None
    numbers.flags.writeable = False
    return numbers


def check_strata(strata: Strata, groups: IntArray | None, n: int) -> None:
    """Check that there is a stratum per score, and that no group is in two strata."""
    if strata.numbers.shape != (n,):
        raise InputError(f"strata: {strata.numbers.size} for {n} calibration scores; give one each")
    if groups is None:
        return
    several = len(set(zip(groups.tolist(), strata.numbers.tolist(), strict=True))) - len(set(groups.tolist()))
    if several:
        raise InputError(f"strata: {several} groups of images are in two strata; name groups within strata")


def finite_scores(scores: npt.ArrayLike) -> FloatArray:
    """Return calibration scores (n,) as float32; InputError unless n >= 1 and all are finite."""
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not values.size:
        raise InputError(f"calibration needs scores of shape (n,), n >= 1, not {values.shape}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"{bad} of {values.size} calibration scores are not finite; check images")
    return values.astype(np.float32)


def checked_scores(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return scores to judge as float64; InputError if one is NaN."""
    values = np.asarray(scores, np.float64)
    bad = int(np.isnan(values).sum())
    if bad:
        raise InputError(f"{bad} of {values.size} scores are not a number; check the images")
    return values


def fewest_units(n: int, groups: IntArray | None, strata: Strata | None) -> tuple[int, str]:
    """Return the smallest number of groups of any stratum, and the words for them."""
    units = np.arange(n) if groups is None else groups
    if strata is None:
        return np.unique(units).size, counted(groups)
    fewest, name = min((np.unique(units[strata.positions(name)]).size, name) for name in strata.names)
    return fewest, f"{counted(groups)} of stratum {name!r}"


def counted(groups: IntArray | None) -> str:
    """Return the words for calibration normals, or groups of them."""
    return "normals" if groups is None else "groups of normals"


def maximum_p_value(groups: Sequence[npt.NDArray[np.float64]], scores: npt.NDArray[np.float64]) -> float:
    """Return the p-value of the maximum of m scores among that of m drawn from each group of at least m.

    Parameters
    ----------
    groups : sequence of ndarray
        Scores of each calibration group, ascending.
    scores : ndarray
        Scores of the new group.
    """
    m, highest, above, count = scores.size, scores.max(), Fraction(0), 0
    for group in groups:
        if len(group) >= m:
            lower = int(np.searchsorted(group, highest, "left"))
            above += 1 - Fraction(math.comb(lower, m), math.comb(len(group), m))
            count += 1
    return float((1 + above) / (count + 1))


def scores_by_group(scores: FloatArray, groups: IntArray | None) -> list[npt.NDArray[np.float64]]:
    """Return the scores of each group, ascending, from all scores, ascending."""
    numbers = np.arange(scores.size) if groups is None else groups
    order = np.argsort(numbers, kind="stable")
    return np.split(scores[order].astype(np.float64), np.cumsum(np.bincount(numbers))[:-1])
