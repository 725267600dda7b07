"""Scores of pixels counted in 655,360 fine bins: AUROC and AUPRO of any number of images, in 16 MB."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from anomem.metrics.pixel_intervals import ImagePixels, area_to
from anomem.metrics.ranks import Floats

__all__ = ["PixelBins"]

_Doubles: TypeAlias = npt.NDArray[np.float64]
_Bins: TypeAlias = npt.NDArray[np.int64]

_MANTISSA = 14
"""Number of bits of the distance from the centre that bins resolve: 16,384 bins per doubling of the distance."""

_OCTAVES = 20
_BELOW = 12
"""Number of octaves below the typical distance; nearer values share a bin, farther ones than the rest another."""

_SIDE = _OCTAVES << _MANTISSA
_AT_ONCE = 1 << 20


class PixelBins:
    """Counts of defect-free and defective pixels by score.

    Bins are 1 / 16,384 as wide as their distance from the centre, the median of the first scores, so that they fit any
    scale and resolve tails as well as the middle. Scores of one bin count as equal.

    Parameters
    ----------
    first : ndarray of float
        Scores that say where the centre is and what is far from it.
    """

    def __init__(self, first: Floats) -> None:
        self.centre = float(np.median(first))
        typical = float(np.quantile(np.abs(first - self.centre), 0.9)) or 1.0
        exponent = int(np.float32(typical).view(np.uint32)) >> 23
        self._lowest = max(0, exponent - _BELOW) << _MANTISSA
        self.normal: _Bins = np.zeros(2 * _SIDE, np.int64)
        self.defect: _Bins = np.zeros(2 * _SIDE, np.int64)
        self.overlap: _Doubles = np.zeros(2 * _SIDE)

    def of(self, scores: Floats) -> npt.NDArray[np.int32]:
        """Return the bin of each score, (N,) int32; bins rise with the scores."""
        with np.errstate(over="ignore"):  # infinite distances share the last bin
            bins = (scores - self.centre).astype(np.float32, copy=False).view(np.int32)
        below = bins < 0
        # In place, since there may be very many.
        bins &= np.int32(0x7FFFFFFF)
        bins >>= np.int32(23 - _MANTISSA)
        bins -= np.int32(self._lowest)
        np.clip(bins, 0, _SIDE - 1, out=bins)
        np.invert(bins, out=bins, where=below)
        bins += np.int32(_SIDE)
        return bins

    def add(self, pixels: ImagePixels) -> ImagePixels:
        """Count one image's pixels, and return them as bins: each occurring bin once, with its count."""
        counts, defect = _histogram(self.of(pixels.normal)), self.of(pixels.defect)
        self.normal += counts
        normal = np.flatnonzero(counts)
        if defect.size:
            self.defect += _histogram(defect)
            self.overlap += np.bincount(defect, weights=pixels.overlap, minlength=self.overlap.size)
        return ImagePixels(normal, defect, pixels.overlap, pixels.n_regions, counts[normal])

    def auroc(self) -> float:
        """Return the AUROC over all pixels, pairs of one bin counted half; off by at most :meth:`error`."""
        below = np.cumsum(self.normal) - self.normal
        pairs = _dot(self.defect, below) + _dot(self.defect, self.normal) / 2
        return pairs / (float(self.normal.sum()) * float(self.defect.sum()))

    def error(self) -> float:
        """Return the maximum error of the AUROC: half the share of pairs that fall into one bin."""
        return _dot(self.defect, self.normal) / (2 * float(self.normal.sum()) * float(self.defect.sum()))

    def aupro(self, fpr_limit: float, n_regions: int) -> float:
        """Return the AUPRO over all pixels; see the function `anomem.metrics.aupro`."""
        used = np.flatnonzero((self.normal > 0) | (self.defect > 0))[::-1]
        fpr = np.append(0.0, np.cumsum(self.normal[used]) / self.normal.sum())
        pro = np.append(0.0, np.minimum(np.cumsum(self.overlap[used]) / n_regions, 1.0))
        return min(1.0, area_to(fpr, pro, fpr_limit) / fpr_limit)


def _histogram(bins: npt.NDArray[np.int32]) -> _Bins:
    """Count each bin, in pieces, since counting takes a copy of twice the size."""
    counts = np.zeros(2 * _SIDE, np.int64)
    for start in range(0, bins.size, _AT_ONCE):
        counts += np.bincount(bins[start : start + _AT_ONCE], minlength=counts.size)
    return counts


def _dot(one: _Bins, other: _Bins) -> float:
    """Return the sum of products in doubles: whole numbers would overflow."""
    return float(np.dot(np.asarray(one, np.float64), other.astype(np.float64)))
