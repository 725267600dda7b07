"""False-alarm rates that a number of calibration normals can carry."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

from anomem.errors import AnomemWarning, CalibrationError

__all__ = [
    "DEFAULT_ALPHA",
    "check_alpha",
    "checked_alpha",
    "cv_plus_bound",
    "default_alpha",
    "normals_needed",
    "rejected_ranks",
]

DEFAULT_ALPHA = 0.01
"""Default promised false-alarm rate."""


def check_alpha(alpha: float | None, n: int, *, grouped: bool = False) -> None:
    """Check, before scoring, that ``n`` calibration normals or groups are enough for alpha.

    Parameters
    ----------
    alpha : float or None
        False-alarm rate; None for the default, which is adapted to n.
    n : int
        Number of calibration normals, or of groups of them.
    grouped : bool
        True for groups.

    Raises
    ------
    CalibrationError
        Too few normals; the message gives the number missing.
    """
    if alpha is not None:
        checked_alpha(alpha, n, "groups of normals" if grouped else "normals")


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
        Number of rejected ranks, from 0 (n is too small for alpha) to n.

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


def cv_plus_bound(alpha: float, folds: int, n: int) -> float:
    """Return the bound of the rate by CV+, 2 alpha + min(2 (1 - 1/K) / (n/K + 1), (1 - K/n) / (K + 1)).

    Parameters
    ----------
    alpha : float
    folds : int
        Number of folds K, taken as of equal size.
    n : int
        Number of calibration scores.

    References
    ----------
    Barber, Candes, Ramdas and Tibshirani, "Predictive inference with the jackknife+", 2021, Theorem 4.
    """
    excess = min(2 * (1 - 1 / folds) / (n / folds + 1), (1 - folds / n) / (folds + 1))
    return min(1.0, 2 * alpha + excess)


def normals_needed(alpha: float) -> int:
    """Return the smallest n with 1 / (n + 1) <= alpha."""
    total = math.ceil(1 / Fraction(alpha))
    return total - 2 if total > 2 and 1 / (total - 1) <= alpha else total - 1


def checked_alpha(alpha: float, n: int, normals: str = "normals") -> float:
    """Return alpha as a number; CalibrationError if it is none, or too small for n calibration `normals`."""
    try:
        value = float(alpha)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < 1:
        raise CalibrationError(f"alpha must be above 0 and below 1, not {alpha!r}")
    if not rejected_ranks(value, n):
        needed = normals_needed(value)
        raise CalibrationError(
            f"alpha {value:g} needs {needed} calibration {normals} and there are {n};"
            f" add {needed - n} more, or use alpha {1 / (n + 1):.3g} or above"
        )
    return value


def default_alpha(n: int, counted: str) -> float:
    """Return the default alpha, or the smallest that n carry, with a warning."""
    if rejected_ranks(DEFAULT_ALPHA, n):
        return DEFAULT_ALPHA
    alpha = 1 / (n + 1)
    warnings.warn(
        f"{n} calibration {counted} allow a false-alarm rate of {alpha:.3g}, not"
        f" {DEFAULT_ALPHA}; add {normals_needed(DEFAULT_ALPHA) - n} more for it; calibrating at {alpha:.3g}",
        AnomemWarning,
        stacklevel=3,
    )
    return alpha
