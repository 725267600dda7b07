"""Conformal calibration: p-values, threshold and promised false-alarm rate from scores of normals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from anomem.errors import AnomemWarning, InputError
from anomem.runtime.alpha import check_alpha, checked_alpha, normals_needed, rejected_ranks
from anomem.runtime.beta import beta_quantile
from anomem.types import BoolArray, FloatArray, IntArray

__all__ = [
    "DEFAULT_ALPHA",
    "KINDS",
    "Calibration",
    "beta_quantile",
    "calibrate",
    "check_alpha",
    "group_numbers",
    "rejected_ranks",
]

DEFAULT_ALPHA = 0.01
"""Default promised false-alarm rate."""

KINDS = ("split", "cross", "cross-exact")
"""Kinds of calibration; see :class:`Calibration`."""

_MOST_GROUPED = 100_000


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration scores of held-out normals, with p-values and verdicts of new scores.

    With n calibration scores s_i, the p-value of a score s is ``(1 + #{s_i >= s}) / (n + 1)``, and
    an image is anomalous iff ``p <= alpha``. Averaged over calibration sets, at most alpha of the
    normals that are exchangeable with the calibration normals are called anomalous [1]_.

    With ``groups`` (photographs of one part, a burst, versions of one photograph), G groups count in place of n
    images: ``p = (1 + sum over groups of the share of the group's images that score >= s) / (G + 1)``. That is the
    p-value expected when one image is drawn from each group, computed without drawing. Averages of p-values are valid
    up to a factor of 2 in general; this one is without the factor where a new image comes from a new group like those
    of the calibration. Proof: among all G + 1 groups, let t be the lowest score that is rejected; the shares of images
    that score >= t, summed over groups, are at most alpha (G + 1), since the own group adds at most 1; and every group
    is as likely to be the new one. Where every group is one image, this is the p-value above, to the bit.

    Parameters
    ----------
    scores : ndarray of float32, shape (n,)
        Calibration scores, ascending, finite.
    alpha : float
        Promised false-alarm rate, from 1 / (G + 1) to below 1; G is n without groups.
    precision : str
        Arithmetic used for the scores ("float32", "bfloat16"); scores of another precision are
        not exchangeable with them.
    groups : ndarray of intp, shape (n,), optional
        Group number of each score, from 0 to G - 1; None if every score is a group of its own.
    kind : {"split", "cross", "cross-exact"}
        "split": the scores are those of normals that the model has not learnt from, and the theorem holds. "cross":
        each is by a model without its fold, while new images are scored by a model of all; this has no
        distribution-free bound. "cross-exact": new images are scored by the models of all folds (CV+) [2]_.
    folds : int
        Number of folds K; 0 for a split.

    Raises
    ------
    CalibrationError
        Alpha below 1 / (n + 1), or 1 / (G + 1) with groups.
    InputError
        Invalid scores or groups.

    References
    ----------
    .. [1] Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, ch. 2.
    .. [2] Barber, Candes, Ramdas and Tibshirani, "Predictive inference with the jackknife+", 2021.

    Examples
    --------
    >>> calibration = Calibration(np.arange(19, dtype=np.float32), alpha=0.1)
    >>> calibration.threshold
    17.0
    >>> calibration.p_value([17.0, 17.5]).tolist()
    [0.15, 0.1]
    >>> calibration.decide([17.0, 17.5]).tolist()
    [False, True]

    Four photographs of two parts:

    >>> parts = calibrate([1.0, 2.0, 5.0, 6.0], 0.4, groups=["a", "a", "b", "b"])
    >>> parts.n_groups, parts.p_value([1.5, 5.5, 7.0]).round(3).tolist()
    (2, [0.833, 0.5, 0.333])
    """

    scores: FloatArray
    alpha: float
    precision: str = "float32"
    groups: IntArray | None = None
    kind: str = "split"
    folds: int = 0

    def __post_init__(self) -> None:
        """Check scores and alpha, and store a read-only copy."""
        scores = self.scores
        if self.kind not in KINDS or (self.folds >= 2) != (self.kind != "split"):
            raise InputError(f"calibration of kind {self.kind!r} with {self.folds} folds; expected {', '.join(KINDS)}")
        if scores.dtype != np.float32 or scores.ndim != 1:
            raise InputError("calibration scores must be a float32 array of shape (n,)")
        if not scores.size or not np.isfinite(scores).all() or (np.diff(scores) < 0).any():
            raise InputError("calibration scores must be finite, sorted and at least one")
        scores = scores.copy()
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "groups", _checked_groups(self.groups, scores.size))
        object.__setattr__(self, "alpha", checked_alpha(self.alpha, self.n_groups, _counted(self.groups)))

    def __eq__(self, other: object) -> bool:
        """Return True if both give the same p-values and verdicts."""
        if not isinstance(other, Calibration):
            return NotImplemented
        same_facts = (self.alpha, self.precision, self.kind) == (other.alpha, other.precision, other.kind)
        return same_facts and all(
            np.array_equal(mine, its)
            for mine, its in ((self.scores, other.scores), (_listed(self.groups), _listed(other.groups)))
        )

    def __hash__(self) -> int:
        """Return a hash consistent with equality."""
        return hash((self.alpha, self.precision, self.n))

    @property
    def n(self) -> int:
        """Number of calibration scores."""
        return int(self.scores.size)

    @cached_property
    def n_groups(self) -> int:
        """Number of independent groups G; the number of scores without groups."""
        return self.n if self.groups is None else int(self.groups.max()) + 1

    @property
    def alpha_min(self) -> float:
        """Smallest attainable alpha, 1 / (G + 1)."""
        return 1 / (self.n_groups + 1)

    @cached_property
    def _p_by_rank(self) -> npt.NDArray[np.float64]:
        """P-values of a score above j calibration scores, j = 0..n, descending."""
        if self.groups is None:
            return (1 + np.arange(self.n, -1, -1)) / (self.n + 1)
        # Whole numbers: sums of fractions would depend on their order.
        sizes = np.bincount(self.groups)
        whole = math.lcm(*sizes.tolist())
        above = [0]
        for group in self.groups[::-1]:
            above.append(above[-1] + whole // int(sizes[group]))
        return np.asarray([float(Fraction(whole + a, whole * (self.n_groups + 1))) for a in reversed(above)])

    @property
    def threshold(self) -> float:
        """Largest accepted score; without groups the k-th largest, k = floor(alpha (n + 1)).

        ``p <= alpha`` holds exactly for scores above the threshold, ties included, because the p-value depends only
        on the number of calibration scores below.
        """
        return float(self.scores[int((self._p_by_rank > self.alpha).sum()) - 1])

    @cached_property
    def rate_limit_95(self) -> float:
        """Upper 95 % confidence limit of the false-alarm rate of this calibration set.

        Over calibration sets with scores that do not tie, the rate follows Beta(k, G + 1 - k),
        k = floor(alpha (G + 1)); this is its 0.95-quantile. With ties the rate is lower; where images of a group
        differ as much as those of different groups, so is its spread. For the kinds "cross" and "cross-exact" it is
        computed as if calibration scores and new scores were exchangeable.
        """
        ranks = rejected_ranks(self.alpha, self.n_groups)
        return beta_quantile(0.95, ranks, self.n_groups + 1 - ranks)

    @property
    def bound(self) -> float | None:
        """Proven bound of the mean false-alarm rate of exchangeable normals; None where there is none ("cross").

        "split": alpha. "cross-exact": 2 alpha + min(2 (1 - 1/K) / (G/K + 1), (1 - K/G) / (K + 1)), Theorem 4 of [2]_ of
        the class, which takes folds of equal size.
        """
        if self.kind == "split":
            return self.alpha
        if self.kind == "cross":
            return None
        k, n = self.folds, self.n_groups
        return min(1.0, 2 * self.alpha + min(2 * (1 - 1 / k) / (n / k + 1), (1 - k / n) / (k + 1)))

    def p_value(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Compute the conformal p-value of each score.

        Parameters
        ----------
        scores : array_like of float
            Scores of any shape; infinities are allowed.

        Returns
        -------
        ndarray of float64, of the same shape
            P-values from 1 / (G + 1) to 1; smaller is more anomalous.

        Raises
        ------
        InputError
            A score is NaN.
        """
        lower = np.searchsorted(self.scores.astype(np.float64), _checked_scores(scores), "left")
        return np.asarray(self._p_by_rank[lower], np.float64)

    def group_p_value(self, scores: npt.ArrayLike) -> float:
        """Return the p-value of a new group with scores (m,): its maximum compared with the groups' maxima.

        Valid if new groups have as many images as the calibration groups.
        """
        highest = _checked_scores(scores).max()
        groups = np.arange(self.n) if self.groups is None else self.groups
        top = np.full(self.n_groups, -np.inf)
        np.maximum.at(top, groups, self.scores.astype(np.float64))
        return float((1 + (top >= highest).sum()) / (self.n_groups + 1))

    def decide(self, scores: npt.ArrayLike) -> BoolArray:
        """Return verdicts: True for ``score > threshold``, equivalent to ``p_value <= alpha``.

        Raises
        ------
        InputError
            A score is NaN.
        """
        return np.asarray(_checked_scores(scores) > self.threshold)

    def facts(self) -> dict[str, float | int | str]:
        """Return the facts of the calibration for a manifest, without the scores."""
        facts: dict[str, float | int | str] = {"alpha": self.alpha, "n": self.n, "precision": self.precision}
        facts |= {} if self.groups is None else {"groups": self.n_groups}
        return facts if self.kind == "split" else {**facts, "kind": self.kind, "folds": self.folds}

    def with_alpha(self, alpha: float) -> Calibration:
        """Return the same calibration with another false-alarm rate.

        Raises
        ------
        CalibrationError
            Too few normals; the message gives the number missing.
        """
        return replace(self, alpha=alpha)


def calibrate(
    scores: npt.ArrayLike,
    alpha: float | None = None,
    precision: str = "float32",
    groups: Sequence[Hashable | None] | None = None,
    *,
    kind: str = "split",
    folds: int = 0,
) -> Calibration:
    """Calibrate on scores of held-out normals.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
        Scores in any order.
    alpha : float, optional
        Promised false-alarm rate. By default 0.01, or 1 / (G + 1) with a warning if there are too few groups (without
        groups: images).
    precision : str
        Arithmetic used for the scores.
    groups : sequence of hashable or None, shape (n,), optional
        Part, lot or burst of each score; None for a group of its own. P-values count groups.
    kind, folds
        As for :class:`Calibration`.

    Returns
    -------
    Calibration

    Raises
    ------
    CalibrationError
        Explicit alpha below 1 / (n + 1), or 1 / (G + 1) with groups.
    InputError
        No scores, more than one axis, scores that are not finite, or another number of groups.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not values.size:
        raise InputError(f"calibration needs scores of shape (n,), n >= 1, not {values.shape}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"{bad} of {values.size} calibration scores are not finite; check images")
    if groups is not None and len(groups) != values.size:
        raise InputError(f"{len(groups)} groups for {values.size} calibration scores; give one each (None: no group)")
    order = np.argsort(values, kind="stable")
    numbers = None if groups is None else _checked_groups(group_numbers([groups[i] for i in order]), values.size)
    n = values.size if numbers is None else int(numbers.max()) + 1
    if alpha is None:
        alpha = DEFAULT_ALPHA
        if not rejected_ranks(alpha, n):
            alpha = 1 / (n + 1)
            short = normals_needed(DEFAULT_ALPHA) - n
            warnings.warn(
                f"{n} calibration {_counted(numbers)} allow a false-alarm rate of {alpha:.3g}, not"
                f" {DEFAULT_ALPHA}; add {short} more for it; calibrating at {alpha:.3g}",
                AnomemWarning,
                stacklevel=2,
            )
    return Calibration(values[order].astype(np.float32), alpha, precision, numbers, kind, folds)


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


def _checked_groups(groups: IntArray | None, n: int) -> IntArray | None:
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


def _counted(groups: IntArray | None) -> str:
    return "normals" if groups is None else "groups of normals"


def _listed(groups: IntArray | None) -> list[int]:
    return [] if groups is None else groups.tolist()


def _checked_scores(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    bad = int(np.isnan(values).sum())
    if bad:
        raise InputError(f"{bad} of {values.size} scores are not a number; check the images")
    return values
