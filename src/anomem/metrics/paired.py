"""Paired comparison of two methods: the mean difference, its bootstrap interval, and the share of units won."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["MANY_CATEGORIES", "Comparison", "Pair", "compare"]

MANY_CATEGORIES = 8
"""Minimum number of categories that are resampled; with fewer, 7 and more of 100 intervals of 95 % would miss."""

_LEVEL = 0.95
_EQUAL = 1e-9
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Figures of two methods on one unit: the same test images, seed and draw.

    Parameters
    ----------
    category : hashable
    repeat : tuple
        Seed of the fit, and draw or None.
    a, b : float
        Figures of the two methods.
    error : float or None
        Standard error of ``a - b`` over test images; None where unknown.
    """

    category: Hashable
    repeat: tuple[int, int | None]
    a: float
    b: float
    error: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Difference of a and b over the units that both have.

    Parameters
    ----------
    n_units, n_categories : int
    difference : float
        Mean of ``a - b``: over the units of a category, then over categories.
    low, high : float or None
        95 % interval of the difference; None where its variation is unknown.
    basis : tuple of str
        Resampled parts: "categories", "seeds", "draws", "images".
    wins, ties, losses : int
        Units in which a is better than b, equal, worse.
    error_ratio : float or None
        Ratio of errors for fractions whose best is 1: (1 - mean a) / (1 - mean b); None
        where b's error is 0.
    """

    n_units: int
    n_categories: int
    difference: float
    low: float | None
    high: float | None
    basis: tuple[str, ...]
    wins: int
    ties: int
    losses: int
    error_ratio: float | None

    @property
    def verdict(self) -> int:
        """Sign of a clear difference: 1 where the interval lies above 0, -1 where below, 0 otherwise or without one."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def compare(pairs: Sequence[Pair], *, higher: bool = True, draws: int = 2000, seed: int = 0) -> Comparison:
    r"""Compare two methods on the units that both have.

    The interval is a percentile bootstrap of the mean difference.

    - With eight categories or more, categories are drawn, each with all its units (a cluster bootstrap: units of a
      category are alike). Percentiles are widened for small numbers as Hesterberg does,
      :math:`\alpha / 2 = \Phi(-\sqrt{n / (n - 1)}\, t_{n - 1})`.
    - With fewer categories, the interval is one for these categories: within each, seeds are drawn (draws, where there
      is one seed), their deviations enlarged by :math:`\sqrt{n / (n - 1)}`, which a bootstrap of n lacks; and the test
      images' contribution is added with its standard error, undiminished by repetition, as repetitions judge the same
      images.

    Parameters
    ----------
    pairs : sequence of Pair
        Pairs of figures, at least one.
    higher : bool
        True where more is better.
    draws, seed : int
        Number of resamples, and their random seed.

    Returns
    -------
    Comparison

    References
    ----------
    Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician, 2015, Sec. 5.3.

    Examples
    --------
    >>> found = compare([Pair("tile", (0, None), 0.95, 0.90, 0.01)])
    >>> round(found.difference, 3), round(found.low, 3), round(found.high, 3), round(found.error_ratio, 3)
    (0.05, 0.03, 0.07, 0.5)
    """
    by_category: dict[Hashable, list[Pair]] = {}
    for pair in pairs:
        by_category.setdefault(pair.category, []).append(pair)
    groups = list(by_category.values())
    means = np.asarray([[statistics.fmean(p.a for p in g), statistics.fmean(p.b for p in g)] for g in groups])
    a, b = means.mean(axis=0)
    low, high, basis = _interval(groups, draws, np.random.default_rng(seed))
    signs = [0 if abs(p.a - p.b) <= _EQUAL else 1 if (p.a > p.b) == higher else -1 for p in pairs]
    return Comparison(
        n_units=len(pairs),
        n_categories=len(groups),
        difference=float(a - b),
        low=low,
        high=high,
        basis=basis,
        wins=signs.count(1),
        ties=signs.count(0),
        losses=signs.count(-1),
        error_ratio=float((1 - a) / (1 - b)) if higher and b < 1 - _EQUAL else None,
    )


def _interval(
    groups: Sequence[Sequence[Pair]], draws: int, rng: np.random.Generator
) -> tuple[float | None, float | None, tuple[str, ...]]:
    centres = np.asarray([statistics.fmean(p.a - p.b for p in group) for group in groups])
    if len(groups) >= MANY_CATEGORIES:
        drawn = centres[rng.integers(len(centres), size=(draws, len(centres)))].mean(axis=1)
        low, high = np.quantile(drawn, _expanded(len(centres)))
        return float(low), float(high), ("categories",)
    drawn, basis = np.full(draws, centres.mean()), dict[str, None]()
    for group in groups:
        means, what = _clusters(group)
        if len(means) > 1:
            basis[what] = None
            deviations = (means - means.mean()) * math.sqrt(len(means) / (len(means) - 1))
            drawn += deviations[rng.integers(len(means), size=(draws, len(means)))].mean(axis=1) / len(groups)
    error = _image_error(groups)
    if error is not None:
        basis["images"] = None
        drawn += error * rng.permutation(_normal_scores(draws))
    if not basis:
        return None, None, ()
    low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high), tuple(basis)


def _clusters(group: Sequence[Pair]) -> tuple[_Doubles, str]:
    """Return mean differences per seed of a category; per draw, where there is one seed."""
    by_seed: dict[int, list[float]] = {}
    for pair in group:
        by_seed.setdefault(pair.repeat[0], []).append(pair.a - pair.b)
    if len(by_seed) == 1:
        return np.asarray([pair.a - pair.b for pair in group]), "draws"
    return np.asarray([statistics.fmean(part) for part in by_seed.values()]), "seeds"


def _image_error(groups: Sequence[Sequence[Pair]]) -> float | None:
    """Return the standard error of the mean difference over test images; those of categories are independent."""
    total = 0.0
    for group in groups:
        errors = [p.error for p in group]
        known = [error for error in errors if error is not None]
        if len(known) < len(errors):
            return None
        total += statistics.fmean(error**2 for error in known)
    return math.sqrt(total) / len(groups)


def _expanded(n: int) -> tuple[float, float]:
    from scipy.special import stdtrit

    tail = statistics.NormalDist().cdf(-math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, (1 + _LEVEL) / 2)))
    return tail, 1 - tail


@cache
def _normal_scores(draws: int) -> _Doubles:
    """Return evenly spaced quantiles of the normal distribution: a sample without sampling error."""
    normal = statistics.NormalDist()
    return np.asarray([normal.inv_cdf((i + 0.5) / draws) for i in range(draws)])
