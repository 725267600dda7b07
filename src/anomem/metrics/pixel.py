"""Pixel-level metrics of anomaly maps.

Labels and ranks as in :mod:`anomem.metrics.image`. Images that are anomalous but have no mask, or an empty one, say
nothing about pixels: leave them out, or their defects would count as false positives.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError, ParameterError
from anomem.metrics.pixel_bins import PixelBins
from anomem.metrics.pixel_intervals import SAMPLED, ImagePixels, PixelCounts, PixelMetric, area_to
from anomem.metrics.ranks import Floats, floats, last_of_ties, mann_whitney

Masks: TypeAlias = Iterable[npt.NDArray[np.bool_] | None]

EXACT_PIXELS = 1 << 23
"""Number of pixels up to which figures are exact: 8.4 million, such as 32 images of 512 x 512 pixels."""


def pixel_auroc(maps: Iterable[npt.ArrayLike], masks: Masks) -> float:
    """Return the AUROC over all pixels of all maps, ties half; exact up to `EXACT_PIXELS`, then as `PixelScores`.

    Parameters
    ----------
    maps : iterable of array_like of shape (H_i, W_i)
        Anomaly maps; sizes may differ from image to image. A generator is consumed once.
    masks : iterable of ndarray of shape (H_i, W_i), bool, or None
        True on defects; None for an image without any defect. Leave out anomalous images
        whose mask is missing or empty.

    Returns
    -------
    float
        AUROC from 0 to 1.

    Raises
    ------
    InputError
        No defective or no defect-free pixel, a value that is not finite, or shapes that differ.
    """
    return _collected(maps, masks).auroc()


def aupro(maps: Iterable[npt.ArrayLike], masks: Masks, fpr_limit: float = 0.3) -> float:
    """Return the area under the per-region overlap curve up to a false-positive rate, as MVTec defines it.

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
        AUPRO from 0 to 1. A constant map reaches ``fpr_limit / 2``.

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

    Up to `EXACT_PIXELS` every score is kept, and figures are exact. Beyond, scores are counted in
    655,360 fine bins, in bounded memory however many images there are; those of one bin
    then count as equal, and `error` bounds the difference. More images may be added after a
    metric was computed.

    Examples
    --------
    >>> pixels = PixelScores()
    >>> pixels.add(np.array([[0.0, 0.2, 1.0]]), np.array([[False, False, True]]))
    >>> pixels.add(np.array([[0.1, 0.3, 0.1]]))
    >>> pixels.auroc(), pixels.interval("auroc")
    (1.0, (1.0, 1.0))
    """

    def __init__(self) -> None:
        self._normal: list[Floats] = []
        self._defect: list[Floats] = []
        self._overlap: list[npt.NDArray[np.float64]] = []
        self.n_regions = 0
        self.n_images = 0
        self._n_kept = 0
        self._ordered = False
        self._bins: PixelBins | None = None
        self._counts = PixelCounts()
        self._uncounted: list[ImagePixels] = []

    def add(self, anomaly_map: npt.ArrayLike, mask: npt.NDArray[np.bool_] | None = None) -> None:
        """Add one image's map (H, W) and mask (H, W), or None where nothing is defective."""
        values = floats(anomaly_map)
        mask_shape = values.shape if mask is None else mask.shape
        if values.ndim != 2 or mask_shape != values.shape:
            raise InputError(
                f"map {self.n_images} has shape {values.shape} and its mask {mask_shape}; "
                "both must be (height, width) of the image"
            )
        if not np.isfinite(values).all():
            raise InputError(f"map {self.n_images}: NaN or infinite values; maps must be finite")
        pixels = _image_pixels(values, mask)
        self.n_images += 1
        self.n_regions += pixels.n_regions
        if self._bins is not None:
            self._counts.add([self._bins.add(pixels)])
            return
        self._ordered = False
        self._normal.append(pixels.normal)
        if pixels.n_regions:
            self._defect.append(pixels.defect)
            self._overlap.append(pixels.overlap)
        self._uncounted.append(pixels)
        self._n_kept += values.size
        if self._n_kept > EXACT_PIXELS:
            self._fold()

    def auroc(self) -> float:
        """Return the AUROC over all pixels gathered so far; see `pixel_auroc`."""
        self._check()
        if self._bins is not None:
            return self._bins.auroc()
        normal, defect = self._sorted_normal_and_defect()
        # Sorted keys access memory in order, which makes the look-ups many times faster.
        return mann_whitney(np.sort(defect), normal)

    def aupro(self, fpr_limit: float = 0.3) -> float:
        """Return the AUPRO over all pixels gathered so far; see the function `aupro`."""
        if not 0.0 < fpr_limit <= 1.0:
            raise ParameterError(f"fpr_limit={fpr_limit} is not allowed; expected a number above 0 and at most 1")
        self._check()
        if self._bins is not None:
            return self._bins.aupro(fpr_limit, self.n_regions)
        normal, defect = self._sorted_normal_and_defect()
        order = np.argsort(defect)[::-1]
        weights = np.concatenate(self._overlap)[order]
        ranked = defect[order]
        last = last_of_ties(ranked)
        thresholds = ranked[last]
        overlap = np.minimum(np.cumsum(weights)[last] / self.n_regions, 1.0)
        overlap[-1] = 1.0
        # Between two defect scores the overlap is constant, so the curve bends only where a defect
        # score is passed: just above it (right) and at it (left); ties make the diagonal between.
        above = normal.size - np.searchsorted(normal, thresholds, side="right")
        at_least = normal.size - np.searchsorted(normal, thresholds, side="left")
        fpr = np.stack([above, at_least], axis=1).reshape(-1) / normal.size
        pro = np.stack([np.append(0.0, overlap[:-1]), overlap], axis=1).reshape(-1)
        area = area_to(np.r_[0.0, fpr, 1.0], np.r_[0.0, pro, 1.0], fpr_limit)
        return min(1.0, area / fpr_limit)

    @property
    def error(self) -> float:
        """Maximum difference of `auroc` from the exact figure; 0 up to `EXACT_PIXELS`."""
        self._check()
        return 0.0 if self._bins is None else self._bins.error()

    def interval(
        self,
        metric: PixelMetric,
        *,
        fpr_limit: float = 0.3,
        level: float = 0.95,
        draws: int = 1000,
        seed: int = 0,
    ) -> tuple[float, float]:
        """Return the percentile bootstrap interval of "auroc" or "aupro", images resampled whole.

        Images with and without a defect are drawn separately. Draws are taken from scores counted in bins of up to
        2,048 quantiles, around the exact value; parameters as for :func:`~anomem.metrics.bootstrap_interval`.

        Raises
        ------
        InputError, ParameterError
            As for the metric; for a level outside (0, 1), or no draw.
        """
        exact = self.auroc() if metric == "auroc" else self.aupro(fpr_limit)
        return self._counts.interval(metric, exact, fpr_limit=fpr_limit, level=level, draws=draws, seed=seed)

    def _check(self) -> None:
        if not self.n_regions:
            raise InputError("masks: no defective pixel; pixel metrics need at least one")
        if self._bins is None and not any(part.size for part in self._normal):
            raise InputError("masks: no defect-free pixel; pixel metrics need at least one")
        if self._bins is not None and not self._bins.normal.any():
            raise InputError("masks: no defect-free pixel; pixel metrics need at least one")

    def _sorted_normal_and_defect(self) -> tuple[Floats, Floats]:
        dtype = np.result_type(*self._normal, *self._defect)
        if not self._ordered:
            self._count()
            self._normal = [_joined(self._normal, dtype)]
            self._normal[0].sort()
            self._ordered = True
        return self._normal[0], np.concatenate(self._defect).astype(dtype, copy=False)

    def _count(self) -> None:
        self._counts.add(self._uncounted)
        self._uncounted.clear()

    def _fold(self) -> None:
        """Count all kept scores in bins, and keep no further ones."""
        parts = [*self._normal, *self._defect]
        bins = PixelBins(np.concatenate([part[:: max(1, part.size // SAMPLED)] for part in parts]))
        self._count()
        if self._counts.edges is not None:
            self._counts.edges = bins.of(self._counts.edges)
        nothing = np.empty(0, np.float64)
        while self._normal:
            bins.add(ImagePixels(self._normal.pop(), nothing, nothing, 0))
        for defect, overlap in zip(self._defect, self._overlap, strict=True):
            bins.add(ImagePixels(nothing, defect, overlap, 0))
        self._defect.clear()
        self._overlap.clear()
        self._bins = bins


def _image_pixels(values: Floats, mask: npt.NDArray[np.bool_] | None) -> ImagePixels:
    if mask is None or not mask.any():
        return ImagePixels(values.reshape(-1).copy(), np.empty(0, values.dtype), np.empty(0), 0)
    defective = mask.astype(bool)
    sizes, n_regions = _region_sizes(defective)
    return ImagePixels(values[~defective], values[defective], 1.0 / sizes, n_regions)


def _region_sizes(defective: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], int]:
    """Return the size of its region for each defective pixel, and the number of regions."""
    from scipy import ndimage

    rows, columns = (np.flatnonzero(defective.any(axis=axis)) for axis in (1, 0))
    part = defective[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labelled, count = ndimage.label(part, structure=np.ones((3, 3), dtype=np.int8))
    region = labelled[part] - 1
    sizes: npt.NDArray[np.int64] = np.bincount(region, minlength=count).astype(np.int64)[region]
    return sizes, int(count)


def _joined(parts: list[Floats], dtype: np.dtype[Any]) -> Floats:
    """Concatenate, releasing each part as it is copied, so that the peak is one copy, not two."""
    joined: Floats = np.empty(sum(part.size for part in parts), dtype)
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
