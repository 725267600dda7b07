"""Quantiles of the Beta distribution, without SciPy."""

from __future__ import annotations

import math

import numpy as np

from anomem.errors import InputError

__all__ = ["beta_quantile"]


def beta_quantile(q: float, a: int, b: int) -> float:
    """Return a quantile of the Beta(a, b) distribution for integers a and b.

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
