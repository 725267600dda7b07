"""From scores to conformal p-values, and to a promised rate of false alarms."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from anomem.errors import AnomemWarning, CalibrationError, InputError
from anomem.types import BoolArray, FloatArray

__all__ = ["DEFAULT_ALPHA", "Calibration", "beta_quantile", "calibrate", "check_alpha", "rejected_ranks"]

DEFAULT_ALPHA = 0.01
"""The rate of false alarms that is promised unless another one is asked for."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of held-out normals, and what they say about a new score.

    With n calibration scores s_i, the p-value of a score s is ``(1 + #{s_i >= s}) / (n + 1)``, and
    an image is anomalous iff ``p <= alpha``. Averaged over calibration sets, at most alpha of the
    normals that are exchangeable with the calibration normals are called anomalous [1]_.

    Parameters
    ----------
    scores : ndarray of float32, shape (n,)
        Sorted from low to high, finite.
    alpha : float
        The promised rate, from 1 / (n + 1) to below 1.
    precision : str
        The arithmetic that computed the scores ("float32", "bfloat16"); scores of another
        precision are not exchangeable with them.

    Raises
    ------
    CalibrationError
        An alpha that n scores cannot carry.
    InputError
        Scores that are not as described.

    References
    ----------
    .. [1] Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, ch. 2.

    Examples
    --------
    >>> calibration = Calibration(np.arange(19, dtype=np.float32), alpha=0.1)
    >>> calibration.threshold
    17.0
    >>> calibration.p_value([17.0, 17.5]).tolist()
    [0.15, 0.1]
    >>> calibration.decide([17.0, 17.5]).tolist()
    [False, True]
    """

    scores: FloatArray
    alpha: float
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Check the scores and alpha, and keep a read-only copy."""
        scores = self.scores
        if scores.dtype != np.float32 or scores.ndim != 1:
            raise InputError("calibration scores must be a float32 array of shape (n,)")
        if not scores.size or not np.isfinite(scores).all() or (np.diff(scores) < 0).any():
            raise InputError("calibration scores must be finite, sorted and at least one")
        scores = scores.copy()
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "alpha", _checked_alpha(self.alpha, scores.size))

    def __eq__(self, other: object) -> bool:
        """Whether both give the same p-values and decisions."""
        if not isinstance(other, Calibration):
            return NotImplemented
        same_facts = (self.alpha, self.precision) == (other.alpha, other.precision)
        return same_facts and np.array_equal(self.scores, other.scores)

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash((self.alpha, self.precision, self.n))

    @property
    def n(self) -> int:
        """Number of calibration scores."""
        return int(self.scores.size)

    @property
    def alpha_min(self) -> float:
        """The smallest rate that n scores can promise: 1 / (n + 1)."""
        return 1 / (self.n + 1)

    @cached_property
    def _rejected_ranks(self) -> int:
        """k: the number of p-values j / (n + 1), j = 1, 2, ..., that are at most alpha."""
        return rejected_ranks(self.alpha, self.n)

    @property
    def threshold(self) -> float:
        """The largest score that is still accepted: the k-th largest calibration score.

        k = floor(alpha (n + 1)). ``p <= alpha`` holds exactly for the scores above the threshold,
        ties included: at most k - 1 calibration scores reach such a score, and at least k reach
        the threshold itself.
        """
        return float(self.scores[self.n - self._rejected_ranks])

    @cached_property
    def rate_limit_95(self) -> float:
        """With 95 % confidence, this calibration set's own rate of false alarms stays below this.

        Over calibration sets with scores that do not tie, the rate follows Beta(k, n + 1 - k),
        k = floor(alpha (n + 1)); this is its 0.95-quantile. With ties the rate is lower.
        """
        return beta_quantile(0.95, self._rejected_ranks, self.n + 1 - self._rejected_ranks)

    def p_value(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Compute the conformal p-value of each score.

        Parameters
        ----------
        scores : array_like of float
            Of any shape; infinities are allowed.

        Returns
        -------
        ndarray of float64, of the same shape
            From 1 / (n + 1) to 1; the smaller, the more anomalous.

        Raises
        ------
        InputError
            A score is NaN.
        """
        lower = np.searchsorted(self.scores.astype(np.float64), _checked_scores(scores), "left")
        return np.asarray((1 + self.n - lower) / (self.n + 1), np.float64)

    def decide(self, scores: npt.ArrayLike) -> BoolArray:
        """Say which scores are anomalous: ``score > threshold``, which is ``p_value <= alpha``.

        Raises
        ------
        InputError
            A score is NaN.
        """
        return np.asarray(_checked_scores(scores) > self.threshold)

    def with_alpha(self, alpha: float) -> Calibration:
        """Promise another rate from the same scores.

        Raises
        ------
        CalibrationError
            More normals are needed for it; the message says how many.
        """
        return replace(self, alpha=alpha)


def calibrate(scores: npt.ArrayLike, alpha: float | None = None, precision: str = "float32") -> Calibration:
    """Calibrate on the scores of held-out normals.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
        In any order.
    alpha : float, optional
        The promised rate of false alarms. By default 0.01, or 1 / (n + 1) with one warning where
        n is too small for it.
    precision : str
        The arithmetic that computed the scores.

    Returns
    -------
    Calibration

    Raises
    ------
    CalibrationError
        An explicit alpha that n scores cannot carry.
    InputError
        No scores, more than one axis, or scores that are not finite.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not values.size:
        raise InputError(f"calibration needs scores of shape (n,), n >= 1, not {values.shape}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"{bad} of {values.size} calibration scores are not finite: check images")
    if alpha is None:
        alpha = DEFAULT_ALPHA
        if not rejected_ranks(alpha, values.size):
            alpha = 1 / (values.size + 1)
            short = _normals_needed(DEFAULT_ALPHA) - values.size
            warnings.warn(
                f"{values.size} calibration normals carry a false-alarm rate of {alpha:.3g}, not"
                f" {DEFAULT_ALPHA}, for which {short} more are needed: calibrating at {alpha:.3g}",
                AnomemWarning,
                stacklevel=2,
            )
    return Calibration(np.sort(values), alpha, precision)


def check_alpha(alpha: float | None, n: int) -> None:
    """Refuse an alpha that ``n`` calibration normals cannot carry, before any of them is scored.

    Parameters
    ----------
    alpha : float or None
        None stands for the default, which always finds something that n can carry.
    n : int
        Number of calibration normals.

    Raises
    ------
    CalibrationError
        The message says how many images are missing.
    """
    if alpha is not None:
        _checked_alpha(alpha, n)


def rejected_ranks(alpha: float, n: int) -> int:
    """Return floor(alpha (n + 1)), the number of ranks among n calibration scores that are rejected.

    Counts the j in 1..n whose p-value j / (n + 1) is at most alpha, so it agrees with ``p <= alpha`` by definition. The
    product alone may round down across a whole number (0.29 * 100 is 28.999999999999996).

    Parameters
    ----------
    alpha : float
        Above 0 and below 1.
    n : int
        Number of calibration scores, at least 0.

    Returns
    -------
    int
        From 0 (n scores cannot carry alpha) to n.

    Examples
    --------
    >>> rejected_ranks(0.29, 99), rejected_ranks(0.01, 98)
    (29, 0)
    """
    ranks = min(n, math.floor(alpha * (n + 1)))
    while ranks < n and (ranks + 1) / (n + 1) <= alpha:
        ranks += 1
    while ranks > 0 and ranks / (n + 1) > alpha:
        ranks -= 1
    return ranks


def beta_quantile(q: float, a: int, b: int) -> float:
    """Quantile of the Beta(a, b) distribution for whole a and b.

    Bisects x in P(Beta(a, b) <= x) = P(Bin(a + b - 1, x) >= a) = q.

    Parameters
    ----------
    q : float
        From 0 to 1, both excluded.
    a, b : int
        At least 1.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    InputError
        An argument outside its range.

    Examples
    --------
    >>> round(beta_quantile(0.95, 1, 99), 6)
    0.029807
    """
    if not (0 < q < 1 and a >= 1 and b >= 1):
        raise InputError(f"beta_quantile needs 0 < q < 1 and a, b >= 1, not {q}, {a}, {b}")
    if a > b:  # Beta(a, b) mirrored is Beta(b, a): sum the shorter tail of the binomial
        return 1 - _upper_beta_quantile(q, b, a)
    return _upper_beta_quantile(1 - q, a, b)


def _upper_beta_quantile(tail: float, a: int, b: int) -> float:
    """Bisect x in P(Beta(a, b) > x) = P(Bin(a + b - 1, x) <= a - 1) = tail."""
    trials = a + b - 1
    successes = np.arange(a, dtype=np.float64)
    log_choices = math.lgamma(trials + 1) - np.array(
        [math.lgamma(j + 1) + math.lgamma(trials - j + 1) for j in range(a)]
    )
    low, high = 0.0, 1.0
    while low < (middle := 0.5 * (low + high)) < high:
        logs = log_choices + successes * math.log(middle)
        logs += (trials - successes) * math.log1p(-middle)
        if np.exp(logs).sum() > tail:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _normals_needed(alpha: float) -> int:
    """Smallest n with 1 / (n + 1) <= alpha."""
    total = math.ceil(1 / Fraction(alpha))
    return total - 2 if total > 2 and 1 / (total - 1) <= alpha else total - 1


def _checked_alpha(alpha: float, n: int) -> float:
    try:
        value = float(alpha)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < 1:
        raise CalibrationError(f"alpha must be above 0 and below 1, not {alpha!r}")
    if not rejected_ranks(value, n):
        needed = _normals_needed(value)
        raise CalibrationError(
            f"alpha {value:g} needs {needed} calibration normals and there are {n}:"
            f" add {needed - n} more, or ask for alpha {1 / (n + 1):.3g} or above"
        )
    return value


def _checked_scores(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    bad = int(np.isnan(values).sum())
    if bad:
        raise InputError(f"{bad} of {values.size} scores are not a number: check the images")
    return values
