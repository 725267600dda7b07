"""Conformal calibration: p-values, threshold and promised false-alarm rate from scores of normals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from anomem.errors import CalibrationError, InputError
from anomem.runtime.alpha import DEFAULT_ALPHA, check_alpha, checked_alpha, cv_plus_bound, default_alpha, rejected_ranks
from anomem.runtime.beta import beta_quantile
from anomem.runtime.calibration_input import (
    check_strata,
    checked_groups,
    checked_scores,
    counted,
    fewest_units,
    finite_scores,
    group_numbers,
    maximum_p_value,
    scores_by_group,
)
from anomem.runtime.strata import Strata, numbered, unknown_stratum
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


KINDS = ("split", "cross", "cross-exact")
"""Kinds of calibration; see :class:`Calibration`."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration scores of held-out normals, with p-values and verdicts of new scores.

    With n calibration scores s_i, the p-value of a score s is ``(1 + #{s_i >= s}) / (n + 1)``, and
    an image is anomalous iff ``p <= alpha``. Averaged over calibration sets, at most alpha of the
    normals that are exchangeable with the calibration normals are called anomalous [1]_.

    With ``groups`` (photographs of one part, a burst, versions of one photograph), G groups count in place of n
    images: ``p = (1 + sum over groups of the share of the group's images that score >= s) / (G + 1)``. That is the
    p-value expected when one image is drawn from each group, computed without drawing. Averages of p-values are valid
    up to a factor of 2 in general; this one is without the factor for a random image of a random new group like those
    of the calibration. Proof: among all G + 1 groups, let t be the lowest score that is rejected; the shares of images
    that score >= t, summed over groups, are at most alpha (G + 1), since the own group adds at most 1; and every group
    is as likely to be the new one. Where every group is one image, this is the p-value above, to the bit.

    With ``strata`` (camera, product, shift), the scores of each stratum are a calibration of its own, `of`; alpha is
    one for all, and every stratum must carry it [1]_ (Mondrian prediction).

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
    strata : Strata, optional
        Stratum of each score; no group is in two.
    blended : int
        Number of fresh scores among earlier ones moved to them; see `anomem.runtime.blend.blended`. 0: none is moved.

    Raises
    ------
    CalibrationError
        Alpha below 1 / (n + 1), or 1 / (G + 1) with groups, in any stratum.
    InputError
        Invalid scores, groups or strata.

    References
    ----------
    .. [1] Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, ch. 2 and 4.
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
    strata: Strata | None = None
    blended: int = 0

    def __post_init__(self) -> None:
        """Check scores, groups, strata and alpha, and store a read-only copy."""
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
        object.__setattr__(self, "groups", checked_groups(self.groups, scores.size))
        if self.strata is None:
            object.__setattr__(self, "alpha", checked_alpha(self.alpha, self.n_groups, counted(self.groups)))
        else:
            check_strata(self.strata, self.groups, self.n)
            object.__setattr__(self, "alpha", next(iter(self.parts.values())).alpha)

    def __eq__(self, other: object) -> bool:
        """Return True if both give the same p-values and verdicts."""
        if not isinstance(other, Calibration):
            return NotImplemented
        same_facts = self._facts == other._facts
        return same_facts and all(
            np.array_equal(mine, its)
            for mine, its in ((self.scores, other.scores), (_listed(self.groups), _listed(other.groups)))
        )

    @property
    def _facts(self) -> tuple[object, ...]:
        return self.alpha, self.precision, self.kind, self.folds, self.strata, self.blended

    def __hash__(self) -> int:
        """Return a hash consistent with equality."""
        return hash((self._facts, self.n))

    @property
    def n(self) -> int:
        """Number of calibration scores."""
        return int(self.scores.size)

    @cached_property
    def n_groups(self) -> int:
        """Number of independent groups G; the number of scores without groups."""
        return self.n if self.groups is None else int(self.groups.max()) + 1

    @cached_property
    def parts(self) -> dict[str, Calibration]:
        """Calibration of each stratum by name; empty without strata."""
        return {} if self.strata is None else {name: self._part(name) for name in self.strata.names}

    def _part(self, name: str) -> Calibration:
        assert self.strata is not None
        chosen = self.strata.positions(name)
        groups = None if self.groups is None else self.groups[chosen]
        try:
            return replace(self, scores=self.scores[chosen], groups=groups, strata=None)
        except CalibrationError as error:
            raise CalibrationError(f"stratum {name!r}: {error}") from error

    def of(self, stratum: str | None) -> Calibration:
        """Return the calibration of a stratum; without strata this calibration, for None.

        Raises
        ------
        InputError
            A stratum without calibration normals; or none where there are strata.
        """
        if self.strata is None and stratum is None:
            return self
        if stratum is not None and stratum in self.parts:
            return self.parts[stratum]
        raise unknown_stratum(stratum, self.parts)

    @property
    def alpha_min(self) -> float:
        """Smallest attainable alpha, 1 / (G + 1); with strata the one that all of them carry."""
        return max((part.alpha_min for part in self.parts.values()), default=1 / (self.n_groups + 1))

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

        Raises
        ------
        InputError
            With strata, each of which has its own.
        """
        if self.strata is not None:
            raise InputError("threshold: each stratum has its own; take of(stratum).threshold")
        return float(self.scores[int((self._p_by_rank > self.alpha).sum()) - 1])

    @cached_property
    def rate_limit_95(self) -> float:
        """Upper 95 % confidence limit of the false-alarm rate of this calibration set.

        Over calibration sets with scores that do not tie, the rate follows Beta(k, G + 1 - k),
        k = floor(alpha (G + 1)); this is its 0.95-quantile. With ties the rate is lower; where images of a group
        differ as much as those of different groups, so is its spread. For the kinds "cross" and "cross-exact" it is
        computed as if calibration scores and new scores were exchangeable. With strata, the largest of their limits.
        """
        if self.strata is not None:
            return max(part.rate_limit_95 for part in self.parts.values())
        ranks = rejected_ranks(self.alpha, self.n_groups)
        return beta_quantile(0.95, ranks, self.n_groups + 1 - ranks)

    @property
    def bound(self) -> float | None:
        """Proven bound of the mean false-alarm rate of exchangeable normals; None where there is none ("cross").

        "split": alpha; where m fresh scores were blended at least 1 / (m + 1). "cross-exact": of `cv_plus_bound`.
        """
        if self.kind == "split":
            return max(self.alpha, 1 / (self.blended + 1)) if self.blended else self.alpha
        if self.kind == "cross":
            return None
        return cv_plus_bound(self.alpha, self.folds, self.n_groups)

    def p_value(self, scores: npt.ArrayLike, strata: Sequence[str] | None = None) -> npt.NDArray[np.float64]:
        """Compute the conformal p-value of each score.

        Parameters
        ----------
        scores : array_like of float
            Scores of any shape; infinities are allowed.
        strata : sequence of str, optional
            Stratum of each of (n,) scores; required with strata.

        Returns
        -------
        ndarray of float64, of the same shape
            P-values from 1 / (G + 1) to 1; smaller is more anomalous.

        Raises
        ------
        InputError
            A score is NaN, or an unknown stratum.
        """
        if self.strata is not None:
            return self._by_stratum(np.asarray(scores, np.float64), strata)
        lower = np.searchsorted(self.scores.astype(np.float64), checked_scores(scores), "left")
        return np.asarray(self._p_by_rank[lower], np.float64)

    def _by_stratum(self, scores: npt.NDArray[np.float64], strata: Sequence[str] | None) -> npt.NDArray[np.float64]:
        if strata is None or scores.shape != (len(strata),):
            raise InputError("strata: each has a threshold of its own; give one stratum per score")
        names, found = np.asarray(strata), np.empty(scores.shape)
        for name in dict.fromkeys(strata):
            found[names == name] = self.of(name).p_value(scores[names == name])
        return found

    def group_p_value(self, scores: npt.ArrayLike, stratum: str | None = None) -> float:
        """Return the p-value of a new group with scores (m,), all of one stratum, by its maximum.

        The maximum is compared with the expected one of m images drawn without replacement from each of the G
        calibration groups of at least m images: ``p = (1 + sum over these groups of the share of m-subsets with a
        maximum >= the new one) / (G + 1)``. Valid without a factor for a new group of m images from the process of
        those groups; the proof is that of single images with m-subsets in their place, and m = 1 is `p_value`. 1 where
        no group has m images.
        """
        return maximum_p_value(self.of(stratum)._by_group, checked_scores(scores))

    def decide(self, scores: npt.ArrayLike, strata: Sequence[str] | None = None) -> BoolArray:
        """Return verdicts: True for ``score > threshold``, equivalent to ``p_value <= alpha``.

        Raises
        ------
        InputError
            A score is NaN, or an unknown stratum.
        """
        if self.strata is not None:
            return np.asarray(self.p_value(scores, strata) <= self.alpha)
        return np.asarray(checked_scores(scores) > self.threshold)

    @cached_property
    def _by_group(self) -> list[npt.NDArray[np.float64]]:
        return scores_by_group(self.scores, self.groups)

    def facts(self) -> dict[str, Any]:
        """Return the facts of the calibration for a manifest, without the scores."""
        facts: dict[str, Any] = {"alpha": self.alpha, "n": self.n, "precision": self.precision}
        facts |= {} if self.groups is None else {"groups": self.n_groups}
        facts |= {} if self.kind == "split" else {"kind": self.kind, "folds": self.folds}
        facts |= {"blended": self.blended} if self.blended else {}
        return facts if self.strata is None else {**facts, **self.strata.facts()}

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
    strata: Sequence[str] | None = None,
    strata_by: str = "",
    blended: int = 0,
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
    strata : sequence of str, shape (n,), optional
        Camera, product or shift of each score; each has a calibration of its own.
    strata_by : str
        Rule that names the strata; see `anomem.runtime.strata.Strata`.
    blended : int
        Number of fresh scores among earlier ones moved to them.

    Returns
    -------
    Calibration

    Raises
    ------
    CalibrationError
        Explicit alpha below 1 / (n + 1), or 1 / (G + 1) with groups, in any stratum.
    InputError
        No scores, more than one axis, scores that are not finite, or another number of groups or strata.
    """
    values = finite_scores(scores)
    for name, column in (("groups", groups), ("strata", strata)):
        if column is not None and len(column) != values.size:
            raise InputError(f"{len(column)} {name} for {values.size} calibration scores; give one each")
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    numbers = None if groups is None else checked_groups(group_numbers([groups[i] for i in order]), values.size)
    known = None if strata is None else numbered([strata[i] for i in order], strata_by)
    if alpha is None:
        alpha = default_alpha(*fewest_units(values.size, numbers, known))
    return Calibration(ascending, alpha, precision, numbers, kind, folds, known, blended)


def _listed(groups: IntArray | None) -> list[int]:
    return [] if groups is None else groups.tolist()
