"""Standard error of the difference of two AUROCs on the same images (DeLong, DeLong and Clarke-Pearson)."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Components", "auroc_components", "paired_error"]

Components: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Structural components of an AUROC: (P,) of P anomalous images, and (N,) of N normal ones."""


def auroc_components(scores: npt.ArrayLike, anomalous: npt.ArrayLike) -> Components:
    """Return the structural components of an AUROC.

    Parameters
    ----------
    scores : array_like of shape (N,), float
        Higher is more anomalous.
    anomalous : array_like of shape (N,), bool
        True for anomalous images, of which there are P.

    Returns
    -------
    of_anomalous : ndarray of shape (P,), float32
        Share of the normal images scored below each anomalous one, ties half; from 0 to 1.
    of_normal : ndarray of shape (N - P,), float32
        Share of the anomalous images scored above each normal one, ties half.
        Both in the order of the images; the mean of either is the AUROC.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves", Biometrics, 1988.

    Examples
    --------
    >>> high, low = auroc_components([1, 2, 3, 4], [False, True, False, True])
    >>> high.tolist(), low.tolist()
    ([0.5, 1.0], [1.0, 0.5])
    """
    values, marks = np.asarray(scores, dtype=np.float64), np.asarray(anomalous, dtype=bool)
    high, low = values[marks], values[~marks]
    return _share_below(high, low).astype(np.float32), (1 - _share_below(low, high)).astype(np.float32)


def paired_error(a: Components, b: Components) -> float | None:
    """Return the standard error of the difference of two AUROCs on the same images.

    Parameters
    ----------
    a, b : Components
        Components of two methods, in the same order of the same images.

    Returns
    -------
    float or None
        Standard error, at least 0; None where a class has a single image.

    Examples
    --------
    >>> marks = [False, False, True, True]
    >>> a, b = auroc_components([1, 2, 3, 4], marks), auroc_components([1, 3, 2, 4], marks)
    >>> round(paired_error(a, b), 3)
    0.354
    """
    if min(len(part) for part in a) < 2:
        return None
    variances = [np.var(x.astype(np.float64) - y, ddof=1) / len(x) for x, y in zip(a, b, strict=True)]
    return math.sqrt(float(sum(variances)))


def _share_below(values: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the share of the others below each value, ties half."""
    ranked = np.sort(others)
    below, up_to = np.searchsorted(ranked, values, "left"), np.searchsorted(ranked, values, "right")
    return (below + up_to) / (2 * max(1, len(ranked)))
