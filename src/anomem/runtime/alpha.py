"""False-alarm rates that a number of calibration normals allows."""

from __future__ import annotations

import math
from fractions import Fraction

from anomem.errors import CalibrationError

__all__ = ["check_alpha", "checked_alpha", "normals_needed", "rejected_ranks"]


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


def normals_needed(alpha: float) -> int:
    """Return the smallest n with 1 / (n + 1) <= alpha."""
    total = math.ceil(1 / Fraction(alpha))
    return total - 2 if total > 2 and 1 / (total - 1) <= alpha else total - 1


def checked_alpha(alpha: float, n: int, normals: str = "normals") -> float:
    """Return alpha as a float; CalibrationError as of :func:`check_alpha`."""
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
