"""Shift: accepted scores of a batch compared with the calibration's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from anomem.runtime.calibration import Calibration, group_numbers

__all__ = ["LEVEL", "Shift", "anderson_darling", "find_shift"]

LEVEL = 0.01
"""P-value up to which a batch is called shifted: one batch in a hundred without any shift."""

_MOST = 1000
"""Maximum number of scores compared per side."""

_DRAWS = 999


@dataclass(frozen=True)
class Shift:
    """Comparison of the accepted scores of a batch with the accepted scores of the calibration.

    Parameters
    ----------
    p_value : float
        Probability of a difference this large without a shift, from 0.001 to 1.
    shifted : bool
        True if `p_value` is at most 0.01; for a cross-fitted calibration only if the accepted scores are higher too,
        since scores by a model without the image's fold are slightly higher than those of the final model.
    higher : bool
        True if the accepted scores of the batch are the higher ones on average of ranks.
    n_accepted, n_calibration : int
        Number of scores compared, at most 1,000 each.
    stratum : str or None
        Stratum of the comparison, that with the smallest p-value of all, which is multiplied by their number.
    """

    p_value: float
    shifted: bool
    higher: bool
    n_accepted: int
    n_calibration: int
    stratum: str | None = None


def find_shift(
    calibration: Calibration,
    scores: npt.ArrayLike,
    strata: Sequence[str] | None = None,
    groups: Sequence[Hashable | None] | None = None,
) -> Shift | None:
    """Compare the accepted scores of a batch with the calibration scores below the threshold.

    Rejected images are left out, since they may be defects. Given the threshold, which is one of the calibration
    scores, those below it and accepted new scores below it are drawn alike where new normals are like the calibration's
    and no accepted image is a defect: the permutation test of the Anderson-Darling statistic is exact then for a
    calibration by `split` and scores that do not tie. It counts images as independent, and one per group.

    Parameters
    ----------
    calibration : Calibration
    scores : array_like of float, shape (m,)
        Raw scores of the batch; NaN is left out.
    strata : sequence of str, shape (m,), optional
        Stratum of each image; required with strata.
    groups : sequence of hashable or None, shape (m,), optional
        Group of each image; one image per group is compared.

    Returns
    -------
    Shift or None
        None where a side has no scores, and for a blended calibration, whose scores are moved.

    Examples
    --------
    >>> from anomem.runtime.calibration import calibrate
    >>> find_shift(calibrate(range(99), 0.05), range(40, 90)).shifted
    True
    """
    if calibration.blended:
        return None
    values = np.asarray(scores, np.float64)
    chosen = np.flatnonzero(~np.isnan(values))
    if groups is not None:
        chosen = _one_per_group(chosen, group_numbers([groups[int(i)] for i in chosen]))
    values = values[chosen]
    if calibration.strata is None:
        return _of_one(calibration, values, None)
    names = np.asarray([] if strata is None else strata)[chosen]
    each = [_of_one(part, values[names == name], name) for name, part in calibration.parts.items()]
    found = [shift for shift in each if shift is not None]
    if not found:
        return None
    first = min(found, key=lambda shift: shift.p_value)
    p_value = min(1.0, first.p_value * len(found))
    return replace(first, p_value=p_value, shifted=first.shifted and p_value <= LEVEL)


def _of_one(calibration: Calibration, scores: npt.NDArray[np.float64], stratum: str | None) -> Shift | None:
    known = calibration.scores.astype(np.float64)
    if calibration.groups is not None:
        known = known[_one_per_group(np.arange(known.size), calibration.groups)]
    known, accepted = (_at_most(side[side < calibration.threshold]) for side in (known, scores))
    if not known.size or not accepted.size:
        return None
    p_value = anderson_darling(known, accepted)
    higher = np.searchsorted(np.sort(known), accepted).mean() > known.size / 2
    shifted = p_value <= LEVEL and (higher or calibration.kind == "split")
    return Shift(p_value, bool(shifted), bool(higher), accepted.size, known.size, stratum)


def anderson_darling(one: npt.ArrayLike, other: npt.ArrayLike, draws: int = _DRAWS) -> float:
    """Return the permutation p-value of the two-sample Anderson-Darling statistic, (1 + k) / (draws + 1).

    The statistic is that for ties [1]_, up to a constant: squared differences of the two samples' cumulative counts
    at the distinct values, weighted by their variance. k counts the random relabellings, seeded by the sizes, with a
    statistic as large.

    Parameters
    ----------
    one, other : array_like of float
        Samples of n and m values.
    draws : int
        Number of random relabellings.

    References
    ----------
    .. [1] Scholz and Stephens, "K-sample Anderson-Darling tests", JASA 82, 1987, equation 7.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    pooled = np.concatenate([first, second])
    order = np.argsort(pooled, kind="stable")
    ends = np.flatnonzero(np.diff(pooled[order]) > 0)  # last position of each distinct value but the greatest
    if not ends.size:
        return 1.0
    below, labels = ends + 1.0, order < first.size
    weights = np.diff(below, prepend=0.0) / (below * (pooled.size - below))

    def statistic(labelled: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        counts = np.cumsum(labelled, axis=-1, dtype=np.float64)[..., ends]
        return np.asarray(np.square(counts - first.size * below / pooled.size) @ weights)

    rng = np.random.default_rng([first.size, second.size])
    drawn = rng.permuted(np.tile(labels, (draws, 1)), axis=1)
    found = statistic(labels)
    # Equal statistics differ by rounding alone.
    return float((1 + np.count_nonzero(statistic(drawn) >= found * (1 - 1e-9))) / (draws + 1))


def _one_per_group(positions: npt.NDArray[np.intp], groups: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Draw one position per group."""
    order = np.random.default_rng(positions.size).permutation(positions.size)
    first = np.unique(groups[order], return_index=True)[1]
    return np.sort(positions[order[first]])


def _at_most(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the scores, or as many drawn from them as are compared."""
    if scores.size <= _MOST:
        return scores
    return np.random.default_rng(scores.size).choice(scores, _MOST, replace=False)
