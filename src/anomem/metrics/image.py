"""Image-level detection metrics: pure functions on arrays.

Labels are 0 (normal) and 1 (anomalous); a higher score is more anomalous; results are fractions
from 0 to 1. Scores are ranked, never squashed, so every value here is the same for ``scores`` and
``1e6 * scores``, and tied scores count as tied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError, ParameterError
from anomem.metrics.ranks import Counts, Floats, floats, last_of_ties, mann_whitney

Scores: TypeAlias = npt.ArrayLike
Labels: TypeAlias = npt.ArrayLike
Metric: TypeAlias = Callable[[npt.NDArray[Any], npt.NDArray[np.bool_]], float]
_Doubles: TypeAlias = npt.NDArray[np.float64]


def auroc(scores: Scores, labels: Labels) -> float:
    """Return the area under the ROC curve: how often an anomalous image outranks a normal one, ties half.

    Parameters
    ----------
    scores : array_like of shape (N,)
        Finite scores; higher is more anomalous.
    labels : array_like of shape (N,)
        0 normal, 1 anomalous.

    Returns
    -------
    float
        AUROC from 0 to 1; 0.5 is chance.

    Raises
    ------
    InputError
        A class is absent, a score is NaN or infinite, or the lengths differ.

    Examples
    --------
    >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    values, positive = _checked(scores, labels)
    return mann_whitney(values[positive], np.sort(values[~positive]))


def average_precision(scores: Scores, labels: Labels) -> float:
    r"""Return the average precision, :math:`\sum_n (R_n - R_{n-1}) P_n` over the distinct thresholds.

    Parameters and errors are those of `auroc`. A ranking by chance reaches the share of anomalous
    images, so values of sets with other shares do not compare.

    Examples
    --------
    >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
    0.8333
    """
    true, false, _ = _counts_by_threshold(*_checked(scores, labels))
    recall = true / true[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * (true / (true + false))))


def f1_max(scores: Scores, labels: Labels) -> tuple[float, float]:
    """Return the largest F1 over all thresholds, and the threshold (``score >= threshold``) for it.

    The threshold is chosen with the labels of the judged images: this is an oracle,
    an upper limit, and never a detector's decision rule. Of several equally good thresholds it is the
    highest. Parameters and errors are those of `auroc`.

    Examples
    --------
    >>> f1_max([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1])
    (1.0, 3.0)
    """
    true, false, thresholds = _counts_by_threshold(*_checked(scores, labels))
    f1 = 2.0 * true / (true + false + true[-1])
    best = int(np.argmax(f1))
    return float(f1[best]), float(thresholds[best])


def fpr_at_tpr(scores: Scores, labels: Labels, tpr: float = 0.95) -> float:
    """Return the share of normal images called anomalous at the highest threshold that finds enough anomalies.

    ``tpr``, the share of anomalous images to find, is above 0 and at most 1. The result is a point
    of the ROC curve, not interpolated; lower is better. Otherwise as `auroc`.

    Examples
    --------
    >>> fpr_at_tpr([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1])
    0.5
    """
    if not 0.0 < tpr <= 1.0:
        raise ParameterError(f"tpr={tpr} is not allowed; expected a number above 0 and at most 1")
    true, false, _ = _counts_by_threshold(*_checked(scores, labels))
    first = int(np.argmax(true / true[-1] >= tpr))
    return float(false[first] / false[-1])


def roc_curve(scores: Scores, labels: Labels) -> tuple[_Doubles, _Doubles, _Doubles]:
    """Return the ROC curve, one point per distinct score, with (0, 0) before them.

    Returns
    -------
    fpr, tpr, thresholds : ndarray of shape (T + 1,), float64
        Rates rise from 0 to 1, thresholds (``score >= threshold``) fall from infinity.

    Examples
    --------
    >>> fpr, tpr, thresholds = roc_curve([1.0, 2.0, 3.0], [0, 1, 1])
    >>> fpr.tolist(), tpr.tolist(), thresholds.tolist()
    ([0.0, 0.0, 0.0, 1.0], [0.0, 0.5, 1.0, 1.0], [inf, 3.0, 2.0, 1.0])
    """
    true, false, thresholds = _counts_by_threshold(*_checked(scores, labels))
    fpr, tpr = np.r_[0.0, false / false[-1]], np.r_[0.0, true / true[-1]]
    return fpr, tpr, np.r_[np.inf, thresholds.astype(np.float64)]


def bootstrap_interval(
    metric: Metric,
    scores: Scores,
    labels: Labels,
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a metric, normals and anomalies resampled separately.

    Parameters
    ----------
    metric : callable
        Function of ``(scores, labels)`` that returns a float, such as `auroc`.
    level : float
        Coverage of the interval, above 0 and below 1.
    draws, seed : int
        Number of resamples, and their random seed; the global random state is not used.

    Returns
    -------
    low, high : float
        Where the classes are separated perfectly every resample is too, and the interval shrinks to
        a point, however few the images.

    Examples
    --------
    >>> low, high = bootstrap_interval(auroc, [1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1], draws=200)
    >>> 0 <= low <= high <= 1
    True
    """
    if not 0.0 < level < 1.0:
        raise ParameterError(f"level={level} is not allowed; expected a number between 0 and 1")
    if draws < 1:
        raise ParameterError(f"draws={draws} is not allowed; expected at least 1")
    values, positive = _checked(scores, labels)
    normal, anomalous = values[~positive], values[positive]
    drawn_labels = np.repeat([False, True], [normal.size, anomalous.size])
    rng = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for i in range(draws):
        again = [part[rng.integers(part.size, size=part.size)] for part in (normal, anomalous)]
        drawn[i] = metric(np.concatenate(again), drawn_labels)
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _counts_by_threshold(values: Floats, positive: npt.NDArray[np.bool_]) -> tuple[Counts, Counts, Floats]:
    """Return anomalous and normal images at or above each distinct score, highest score first."""
    order = np.argsort(values, kind="stable")[::-1]
    ranked = values[order]
    last = last_of_ties(ranked)
    true = np.cumsum(positive[order], dtype=np.int64)[last]
    return true, last + 1 - true, ranked[last]


def _checked(scores: Scores, labels: Labels) -> tuple[Floats, npt.NDArray[np.bool_]]:
    values, marks = floats(scores), np.asarray(labels)
    if values.ndim != 1 or marks.shape != values.shape:
        raise InputError(f"scores have shape {values.shape} and labels {marks.shape}; both must be (N,)")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"score {bad} is {values[bad]}; scores must be finite numbers")
    positive: npt.NDArray[np.bool_] = marks == 1
    if not (positive | (marks == 0)).all():
        raise InputError("labels must be 0 (normal) or 1 (anomalous); leave unknown ones out")
    n_anomalous = int(positive.sum())
    if n_anomalous in (0, positive.size):
        raise InputError(
            f"labels: {positive.size - n_anomalous} normal and {n_anomalous} anomalous images; this metric needs both"
        )
    return values, positive
