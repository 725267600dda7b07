"""Batch verdicts: Benjamini-Hochberg on conformal p-values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from anomem.errors import CalibrationError
from anomem.runtime.calibration import Calibration
from anomem.types import BoolArray

__all__ = ["Batch", "benjamini_hochberg", "check_fdr", "judge_batch", "largest_stratum", "least_rejected"]


def benjamini_hochberg(p_values: npt.ArrayLike, fdr: float) -> BoolArray:
    """Reject by the procedure of Benjamini and Hochberg.

    Of m p-values the k smallest are rejected, k the largest number with p_(k) <= fdr k / m. On average over batches,
    at most the share fdr (1 - a) of the rejected images is normal, a the share of anomalous images [1]_. Proven for
    a calibration by `split` whose scores do not tie, and batches of independent images: conformal p-values of normals
    that share their calibration are positively dependent on each of them (PRDS) [2]_, with strata too, as calibrations
    of different strata are independent and every block of p-values is PRDS. Measured, not proven, for cross-fitted
    calibrations and for p-values that count groups.

    Parameters
    ----------
    p_values : array_like of float, shape (m,)
        NaN for images without one, which are neither counted nor rejected.
    fdr : float
        Largest expected share of normals among the rejected images, above 0 and below 1.

    Returns
    -------
    ndarray of bool, shape (m,)

    Raises
    ------
    CalibrationError
        A value of `fdr` outside its range.

    References
    ----------
    .. [1] Benjamini and Yekutieli, "The control of the false discovery rate in multiple testing under dependency",
       Annals of Statistics 29, 2001.
    .. [2] Bates, Candes, Lei, Romano and Sesia, "Testing for outliers with conformal p-values", Annals of Statistics
       51, 2023, theorem 2.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.9], 0.1).tolist()
    [True, True, True, False]
    """
    share = check_fdr(fdr)
    values = np.asarray(p_values, np.float64)
    known = np.sort(values[~np.isnan(values)])
    # Whole numbers divided are rounded once, as p-values are: j / (n + 1) equal to a bound is within it.
    bounds = [k * share.numerator / (known.size * share.denominator) for k in range(1, known.size + 1)]
    within = np.flatnonzero(known <= bounds)
    return np.asarray(values <= known[within[-1]]) if within.size else np.zeros(values.shape, bool)


def least_rejected(n: int, m: int, fdr: float) -> int:
    """Return the smallest number of images that can be rejected together, ceil(m / (fdr (n + 1))).

    The smallest p-value is 1 / (n + 1), so in a batch of m images fewer are never rejected; more than m: none can be.

    Examples
    --------
    >>> least_rejected(n=99, m=50, fdr=0.1), least_rejected(n=9, m=50, fdr=0.05)
    (5, 100)
    """
    return math.ceil(m / (check_fdr(fdr) * (n + 1)))


def check_fdr(fdr: float) -> Fraction:
    """Return the decimal number as typed; CalibrationError unless above 0 and below 1."""
    try:
        value = float(fdr)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < 1:
        raise CalibrationError(f"fdr must be above 0 and below 1, not {fdr!r}")
    return Fraction(repr(value))


def largest_stratum(calibration: Calibration) -> int:
    """Return the number of groups in the largest stratum, which has the smallest p-value of all."""
    return max((part.n_groups for part in calibration.parts.values()), default=calibration.n_groups)


@dataclass(frozen=True)
class Batch:
    """Verdicts of a batch at a false-discovery rate.

    Parameters
    ----------
    fdr : float
        Largest expected share of normals among the rejected.
    n : int
        Judged images (or groups) m.
    n_rejected : int
        Number of rejected ones.
    least_rejected : int
        Smallest number that can be rejected together; above `n`: none can be.
    """

    fdr: float
    n: int
    n_rejected: int
    least_rejected: int


def judge_batch(p_values: npt.ArrayLike, n_calibration: int, fdr: float) -> tuple[BoolArray, Batch]:
    """Return the verdicts of `benjamini_hochberg` and their facts; `n_calibration` as of `largest_stratum`."""
    rejected = benjamini_hochberg(p_values, fdr)
    m = int((~np.isnan(np.asarray(p_values, np.float64))).sum())
    return rejected, Batch(fdr, m, int(rejected.sum()), least_rejected(n_calibration, m, fdr))
