"""Probability of a number of false alarms under the promised rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from anomem.runtime.calibration import rejected_ranks

__all__ = ["false_alarm_chance", "false_alarms_chance"]


def false_alarm_chance(n_false: int, n_normal: int, n_calibration: int, alpha: float) -> float:
    r"""Return the probability of `n_false` or more false alarms for normals like the calibration's.

    Over calibration sets of n exchangeable normals the false-alarm rate of a continuous score
    follows Beta(k, n + 1 - k), :math:`k = \lfloor\alpha(n + 1)\rfloor`; the count among m further
    normals is therefore beta-binomial. A small value means that these normals differ from those of
    the calibration.

    Examples
    --------
    >>> round(false_alarm_chance(0, 20, 99, 0.05), 3)
    1.0
    >>> round(false_alarm_chance(4, 20, 99, 0.05), 3)
    0.027
    """
    return false_alarms_chance(n_false, [(n_normal, n_calibration)], alpha)


def false_alarms_chance(n_false: int, sets: Sequence[tuple[int, int]], alpha: float) -> float:
    """Return `false_alarm_chance` of several strata together.

    Parameters
    ----------
    n_false : int
    sets : sequence of (n_normal, n_calibration)
        Judged normals and calibration normals of each stratum.
    alpha : float
    """
    counts = np.ones(1)
    for n_normal, n_calibration in sets:
        counts = np.convolve(counts, _beta_binomial(n_normal, n_calibration, alpha))[: n_false + 1]
    return min(1.0, max(0.0, 1.0 - float(counts[:n_false].sum())))


def _beta_binomial(n_normal: int, n_calibration: int, alpha: float) -> npt.NDArray[np.float64]:
    """Return the probability of each number of false alarms, 0 to n_normal."""
    k = rejected_ranks(alpha, n_calibration)
    rest = n_calibration + 1 - k
    if k < 1:
        return np.asarray(np.eye(1, n_normal + 1)[0])
    logs = [
        _log_binomial(n_normal, i) + _log_beta(i + k, n_normal - i + rest) - _log_beta(k, rest)
        for i in range(n_normal + 1)
    ]
    return np.exp(np.asarray(logs, np.float64))


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
