"""Calibration on few fresh normals, blended with the scores of an earlier calibration."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError
from anomem.runtime.calibration import Calibration, calibrate
from anomem.types import FloatArray

__all__ = ["LEAST_FRESH", "aligned", "blended"]

LEAST_FRESH = 10
"""Smallest number of fresh normals that earlier scores are moved to."""


def blended(
    former: Calibration,
    scores: npt.ArrayLike,
    alpha: float | None,
    groups: Sequence[Hashable | None] | None = None,
    precision: str | None = None,
) -> Calibration:
    """Calibrate on fresh scores and, moved and stretched to them by `aligned`, the scores of an earlier calibration.

    With m fresh normals, and n earlier ones: at any alpha from 1 / (m + 1) the rate is bounded by alpha as with the
    fresh normals alone, whatever the shift. Proof: at scores up to the highest fresh one, `aligned` raises as many
    earlier scores as the blended p-value needs to be at least that of the fresh normals alone. Below 1 / (m + 1), down
    to 1 / (n + m + 1), 1 / (m + 1) is the bound, since no score up to the highest fresh one is rejected; that the rate
    is alpha is measured, and needs a shift that moves and stretches scores without changing their distribution's shape.

    Parameters
    ----------
    former : Calibration
        Earlier calibration, not blended itself, without groups and strata.
    scores : array_like of float, shape (m,)
        Fresh scores, at least 10.
    alpha : float or None
        Promised false-alarm rate; by default the former one.
    groups : sequence, optional
        Must be None: groups are not blended.
    precision : str, optional
        Arithmetic of the fresh scores; must be that of `former`.

    Raises
    ------
    InputError
        Fewer fresh normals, groups, strata, another precision, or an earlier calibration that is blended.
    CalibrationError
        Alpha below 1 / (n + m + 1).
    """
    if former.blended:
        raise InputError("blend: the calibration is blended already; blend that of the model as it was fitted")
    if former.groups is not None or any(group is not None for group in groups or ()):
        raise InputError("blend: not available where p-values count groups; calibrate on more groups of normals")
    if precision not in (None, former.precision):
        raise InputError(f"blend: scores in {precision} do not join those in {former.precision}; leave blend out")
    if former.strata is not None:
        raise InputError("blend: not available with strata; calibrate on more normals of each stratum")
    fresh = np.asarray(scores, np.float32)
    joined = np.concatenate([fresh, aligned(former.scores, fresh)])
    return calibrate(joined, former.alpha if alpha is None else alpha, former.precision, blended=fresh.size)


def aligned(earlier: npt.ArrayLike, fresh: npt.ArrayLike) -> FloatArray:
    """Move and stretch earlier scores to fresh ones.

    The median becomes that of the fresh scores; the distances from it are multiplied by the ratio of the median
    absolute deviations and by 1 + 1 / sqrt(m), for the error of an estimate from m scores. Then the
    ``ceil((j + 1) n / (m + 1))`` highest are raised to the j-th highest fresh score, j = 1..m, where they lie below.

    Parameters
    ----------
    earlier : array_like of float, shape (n,)
    fresh : array_like of float, shape (m,)

    Returns
    -------
    ndarray of float32, shape (n,)
        Descending.

    Raises
    ------
    InputError
        Fewer than 10 fresh scores.
    """
    known, new = (np.sort(np.asarray(side, np.float64))[::-1] for side in (earlier, fresh))
    n, m = known.size, new.size
    if m < LEAST_FRESH:
        raise InputError(f"blend: {m} fresh normals are too few to move earlier scores to; give {LEAST_FRESH} or more")
    spread = _spread(known)
    stretch = (_spread(new) / spread if spread > 0 else 1.0) * (1 + 1 / math.sqrt(m))
    moved = np.median(new) + stretch * (known - np.median(known))
    for j in range(1, m + 1):
        raised = min(n, -(-(j + 1) * n // (m + 1)))
        moved[:raised] = np.maximum(moved[:raised], new[j - 1])
    return moved.astype(np.float32)


def _spread(scores: npt.NDArray[np.float64]) -> float:
    return float(np.median(np.abs(scores - np.median(scores))))
