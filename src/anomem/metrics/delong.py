"""metrics.delong."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Components = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def auroc_components(scores: npt.ArrayLike, anomalous: npt.ArrayLike) -> Components:
    """Structural components of an AUROC: of each anomalous image the share of normals below it, and the reverse.

    Parameters
    ----------
    scores : array_like of shape (N,)
    anomalous : array_like of shape (N,), bool

    Returns
    -------
    of_anomalous, of_normal : ndarray, float32
        In the order of the images; the mean of either is the AUROC.

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
    """Standard error of the difference of two AUROCs on the same images, by DeLong's method.

    None where a class has a single image.
    """
    if min(len(part) for part in a) < 2:
        return None
    variances = [np.var(x.astype(np.float64) - y, ddof=1) / len(x) for x, y in zip(a, b, strict=True)]
    return math.sqrt(float(sum(variances)))


def _share_below(values: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the others below each value, ties half."""
    ranked = np.sort(others)
    below, up_to = np.searchsorted(ranked, values, "left"), np.searchsorted(ranked, values, "right")
    return (below + up_to) / (2 * max(1, len(ranked)))
