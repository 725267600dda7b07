"""How well scores and maps tell anomalous from normal: pure functions on arrays.

Labels are 0 (normal) and 1 (anomalous); a higher score is more anomalous; results are fractions
from 0 to 1. Scores are ranked, never squashed, so every value here is the same for ``scores`` and
``1e6 * scores``, and tied scores count as tied.

Images that are anomalous but have no mask, or an empty one, say nothing about pixels: leave them
out before calling the pixel metrics, or their defects would count as false positives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError, ParameterError

Scores: TypeAlias = npt.ArrayLike
Labels: TypeAlias = npt.ArrayLike
Metric: TypeAlias = Callable[[npt.NDArray[Any], npt.NDArray[np.bool_]], float]
Masks: TypeAlias = Iterable[npt.NDArray[np.bool_] | None]

_Floats: TypeAlias = npt.NDArray[np.floating[Any]]
_Doubles: TypeAlias = npt.NDArray[np.float64]
_Counts: TypeAlias = npt.NDArray[np.int64]


def auroc(scores: Scores, labels: Labels) -> float:
    """Area under the ROC curve: how often an anomalous image outranks a normal one, ties half.

    Parameters
    ----------
    scores : array_like of shape (N,)
        Any real numbers; higher is more anomalous.
    labels : array_like of shape (N,)
        0 normal, 1 anomalous.

    Returns
    -------
    float
        From 0 to 1; 0.5 is chance.

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
    return _mann_whitney(values[positive], np.sort(values[~positive]))


def average_precision(scores: Scores, labels: Labels) -> float:
    r"""Average precision, :math:`\sum_n (R_n - R_{n-1}) P_n` over the distinct thresholds.

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
    """Give the largest F1 over all thresholds, and the threshold (``score >= threshold``) for it.

    The threshold is chosen with the labels of the very images that are judged: this is an oracle,
    an upper limit, and never how a detector decides. Of several equally good thresholds it is the
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
    """Share of normal images called anomalous at the highest threshold that finds enough anomalies.

    ``tpr``, the share of anomalous images to find, is above 0 and at most 1. The result is a point
    of the ROC curve, not interpolated; lower is better. Otherwise as `auroc`.

    Examples
    --------
    >>> fpr_at_tpr([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1])
    0.5
    """
    if not 0.0 < tpr <= 1.0:
        raise ParameterError(f"tpr is {tpr}: it must be above 0 and at most 1")
    true, false, _ = _counts_by_threshold(*_checked(scores, labels))
    first = int(np.argmax(true / true[-1] >= tpr))
    return float(false[first] / false[-1])


def roc_curve(scores: Scores, labels: Labels) -> tuple[_Doubles, _Doubles, _Doubles]:
    """Give the ROC curve, one point per distinct score and (0, 0) before them.

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
    """Percentile bootstrap interval of a metric, normals and anomalies resampled separately.

    Parameters
    ----------
    metric : callable
        Takes ``(scores, labels)`` and returns a float, such as `auroc`, whose arguments follow.
    level : float
        Probability that the interval covers, above 0 and below 1.
    draws, seed : int
        Number of resamples, and what they are drawn from; the global random state is left alone.

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
        raise ParameterError(f"level is {level}: it must lie between 0 and 1")
    if draws < 1:
        raise ParameterError(f"draws is {draws}: at least one resample is needed")
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


def pixel_auroc(maps: Iterable[npt.ArrayLike], masks: Masks) -> float:
    """AUROC over all pixels of all maps, exact, ties half.

    Parameters
    ----------
    maps : iterable of array_like of shape (H_i, W_i)
        Anomaly maps; sizes may differ from image to image. A generator is consumed once.
    masks : iterable of ndarray of shape (H_i, W_i), bool, or None
        True on defects; None stands for an image without any defect. Leave out anomalous images
        whose mask is missing or empty.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    InputError
        No defective or no defect-free pixel, a value that is not finite, or shapes that differ.
    """
    return _collected(maps, masks).auroc()


def aupro(maps: Iterable[npt.ArrayLike], masks: Masks, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false-positive rate, as MVTec defines it.

    For every threshold, the overlap is the share of a defect region that reaches the threshold,
    averaged over all 8-connected regions of the data set, so that small defects weigh as much as
    large ones; the false-positive rate is taken over all defect-free pixels of all images. The
    area under the curve by the trapezoid rule, interpolated at ``fpr_limit``, is divided by it.

    Parameters
    ----------
    maps, masks
        As in `pixel_auroc`, with its errors.
    fpr_limit : float
        Right end of the area, above 0 and at most 1.

    Returns
    -------
    float
        From 0 to 1. A constant map reaches ``fpr_limit / 2``.

    References
    ----------
    Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 5.2.

    Examples
    --------
    >>> aupro([np.array([[0.0, 0.0, 1.0]])], [np.array([[False, False, True]])])
    1.0
    """
    return _collected(maps, masks).aupro(fpr_limit)


class PixelScores:
    """Pixel scores of a data set, gathered image by image for `auroc` and `aupro` together.

    Takes 4 bytes for a defect-free pixel and 8 for a defective one when maps are float32; maps
    themselves are not kept. More images may be added after a metric was taken.
    """

    def __init__(self) -> None:
        self._normal: list[_Floats] = []
        self._defect: list[_Floats] = []
        self._regions: list[npt.NDArray[np.int32]] = []
        self._region_sizes: list[_Counts] = []
        self.n_regions = 0
        self.n_images = 0
        self._ordered = False

    def add(self, anomaly_map: npt.ArrayLike, mask: npt.NDArray[np.bool_] | None = None) -> None:
        """Take one image's map (H, W) and mask (H, W), or None where nothing is defective."""
        values = _floats(anomaly_map)
        mask_shape = values.shape if mask is None else mask.shape
        if values.ndim != 2 or mask_shape != values.shape:
            raise InputError(
                f"map {self.n_images} has shape {values.shape} and its mask {mask_shape}: "
                "both must be (height, width) of the image"
            )
        if not np.isfinite(values).all():
            raise InputError(f"map {self.n_images} holds NaN or infinite values")
        self.n_images += 1
        self._ordered = False
        if mask is None or not mask.any():
            self._normal.append(values.reshape(-1).copy())
            return
        defective = mask.astype(bool)
        self._normal.append(values[~defective])
        self._defect.append(values[defective])
        self._add_regions(defective)

    def _add_regions(self, defective: npt.NDArray[np.bool_]) -> None:
        from scipy import ndimage

        labelled, count = ndimage.label(defective, structure=np.ones((3, 3), dtype=np.int8))
        region = labelled[defective].astype(np.int32) - 1
        self._regions.append(region + np.int32(self.n_regions))
        self._region_sizes.append(np.bincount(region, minlength=count).astype(np.int64))
        self.n_regions += int(count)

    def auroc(self) -> float:
        """AUROC over all pixels gathered so far; see `pixel_auroc`."""
        normal, defect = self._sorted_normal_and_defect()
        # Sorted keys walk through memory in order, which makes the look-ups many times faster.
        return _mann_whitney(np.sort(defect), normal)

    def aupro(self, fpr_limit: float = 0.3) -> float:
        """AUPRO over all pixels gathered so far; see the function `aupro`."""
        if not 0.0 < fpr_limit <= 1.0:
            raise ParameterError(f"fpr_limit is {fpr_limit}: it must be above 0 and at most 1")
        normal, defect = self._sorted_normal_and_defect()
        order = np.argsort(defect)[::-1]
        weights = 1.0 / np.concatenate(self._region_sizes)[np.concatenate(self._regions)[order]]
        ranked = defect[order]
        last = _last_of_ties(ranked)
        thresholds = ranked[last]
        overlap = np.minimum(np.cumsum(weights)[last] / self.n_regions, 1.0)
        overlap[-1] = 1.0
        # Between two defect scores the overlap stands still, so the curve bends only where a defect
        # score is passed: just above it (right) and at it (left); ties make the diagonal between.
        above = normal.size - np.searchsorted(normal, thresholds, side="right")
        at_least = normal.size - np.searchsorted(normal, thresholds, side="left")
        fpr = np.stack([above, at_least], axis=1).reshape(-1) / normal.size
        pro = np.stack([np.append(0.0, overlap[:-1]), overlap], axis=1).reshape(-1)
        area = _area_to(np.r_[0.0, fpr, 1.0], np.r_[0.0, pro, 1.0], fpr_limit)
        return min(1.0, area / fpr_limit)

    def _sorted_normal_and_defect(self) -> tuple[_Floats, _Floats]:
        if not self._defect:
            raise InputError("no mask marks a defect: pixel metrics need at least one")
        if not any(part.size for part in self._normal):
            raise InputError("the masks mark every pixel: pixel metrics need defect-free pixels")
        dtype = np.result_type(*self._normal, *self._defect)
        if not self._ordered:
            self._normal = [_joined(self._normal, dtype)]
            self._normal[0].sort()
            self._ordered = True
        return self._normal[0], np.concatenate(self._defect).astype(dtype, copy=False)


def _joined(parts: list[_Floats], dtype: np.dtype[Any]) -> _Floats:
    """Concatenate, letting go of each part as it is copied: one copy at the peak, not two."""
    joined: _Floats = np.empty(sum(part.size for part in parts), dtype)
    end = joined.size
    while parts:
        part = parts.pop()
        joined[end - part.size : end] = part
        end -= part.size
    return joined


def _collected(maps: Iterable[npt.ArrayLike], masks: Masks) -> PixelScores:
    pixels = PixelScores()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        pixels.add(anomaly_map, mask)
    return pixels


def _mann_whitney(positive: _Floats, sorted_negative: _Floats) -> float:
    """U statistic over n m, in whole numbers until the last division."""
    below = np.searchsorted(sorted_negative, positive, side="left")
    up_to = np.searchsorted(sorted_negative, positive, side="right")
    twice = int(below.sum(dtype=np.int64)) + int(up_to.sum(dtype=np.int64))
    return twice / (2 * positive.size * sorted_negative.size)


def _counts_by_threshold(values: _Floats, positive: npt.NDArray[np.bool_]) -> tuple[_Counts, _Counts, _Floats]:
    """Anomalous and normal images at or above each distinct score, highest score first."""
    order = np.argsort(values, kind="stable")[::-1]
    ranked = values[order]
    last = _last_of_ties(ranked)
    true = np.cumsum(positive[order], dtype=np.int64)[last]
    return true, last + 1 - true, ranked[last]


def _last_of_ties(ranked: _Floats) -> _Counts:
    """Index of the last element of every run of equal values."""
    last = np.flatnonzero(ranked[1:] != ranked[:-1])
    return np.append(last, ranked.size - 1).astype(np.int64)


def _area_to(x: _Doubles, y: _Doubles, limit: float) -> float:
    """Trapezoid area under the points (x rising) from 0 to ``limit``, interpolated there."""
    inside = int(np.searchsorted(x, limit, side="right"))
    area = float(np.trapezoid(y[:inside], x[:inside]))
    if inside == x.size:
        return area
    x0, x1, y0, y1 = x[inside - 1], x[inside], y[inside - 1], y[inside]
    at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
    return area + float((limit - x0) * (y0 + at_limit) / 2.0)


def _checked(scores: Scores, labels: Labels) -> tuple[_Floats, npt.NDArray[np.bool_]]:
    values, marks = _floats(scores), np.asarray(labels)
    if values.ndim != 1 or marks.shape != values.shape:
        raise InputError(f"scores have shape {values.shape} and labels {marks.shape}: both must be (N,)")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"score {bad} is {values[bad]}: scores must be finite numbers")
    positive: npt.NDArray[np.bool_] = marks == 1
    if not (positive | (marks == 0)).all():
        raise InputError("labels must be 0 (normal) or 1 (anomalous): leave unknown ones out")
    n_anomalous = int(positive.sum())
    if n_anomalous in (0, positive.size):
        raise InputError(
            f"there are {positive.size - n_anomalous} normal and {n_anomalous} anomalous images: this metric needs both"
        )
    return values, positive


def _floats(values: npt.ArrayLike) -> _Floats:
    """Single and double precision as they are; anything else becomes double precision."""
    array = np.asarray(values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
