"""The trivial features of images, noted while a detector reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from anomem.data.sources import ImageSource
from anomem.types import UInt8Image


class GreyRecorder(ImageSource):
    """A source that passes images on and notes the mean and standard deviation of their grey, and their size.

    The images are decoded for the detector anyway; noting three numbers on the way saves reading the
    whole set twice.

    Parameters
    ----------
    source : ImageSource
        Where the images come from.
    """

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self._noted: dict[int, tuple[float, float, float]] = {}

    def __len__(self) -> int:
        return len(self._source)

    def load(self, i: int) -> UInt8Image:
        """Return the image and note its features."""
        image = self._source.load(i)
        self._noted[i] = (*grey_moments(image), float(image.shape[0] * image.shape[1]))
        return image

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Return the image with its content hash, and note its features."""
        image, digest = self._source.load_with_digest(i)
        self._noted[i] = (*grey_moments(image), float(image.shape[0] * image.shape[1]))
        return image, digest

    def name(self, i: int) -> str:
        """Return the image's name."""
        return self._source.name(i)

    def digest(self, i: int) -> int:
        """Return the image's content hash."""
        return self._source.digest(i)

    def subset(self, indices: Iterable[int]) -> ImageSource:
        """Return some of the images, unwatched."""
        return self._source.subset(indices)

    def take(self, i: int) -> tuple[float, float, float]:
        """Return what was noted of an image, its number of pixels last, and forget it; NaN where it was never read."""
        return self._noted.pop(i, (np.nan, np.nan, np.nan))


def grey_moments(image: UInt8Image) -> tuple[float, float]:
    """Mean and standard deviation of the mean of the three channels, 0 to 255.

    Examples
    --------
    >>> grey_moments(np.full((4, 4, 3), 9, np.uint8))
    (9.0, 0.0)
    """
    grey = image.mean(axis=2, dtype=np.float32)
    return float(grey.mean(dtype=np.float64)), float(grey.std(dtype=np.float64))


_TRIVIAL_ALARM = 0.9

_TRIVIAL_MARGIN = 0.02

_BEST_OF_FOUR = 2.491
"""Standard deviations that the largest of four two-sided normal values exceeds in 5 of 100 cases."""


def looks_confounded(best: float, auroc: float, n_normal: int, n_anomalous: int) -> bool:
    """Whether the best trivial feature comes near a method's AUROC, or near all, and luck cannot explain it.

    Examples
    --------
    >>> looks_confounded(0.95, 0.99, 100, 100), looks_confounded(0.80, 0.95, 100, 100)
    (True, False)
    """
    near = min(_TRIVIAL_ALARM, auroc - _TRIVIAL_MARGIN)
    return best > luck_limit(n_normal, n_anomalous) and best >= near


def luck_limit(n_normal: int, n_anomalous: int) -> float:
    """AUROC that the best of four meaningless features stays below in 95 of 100 sets of this size.

    By the normal approximation of the Mann-Whitney statistic under the null hypothesis; each feature
    counts in its better direction.

    Examples
    --------
    >>> round(luck_limit(100, 100), 3), round(luck_limit(10, 10), 3)
    (0.602, 0.83)
    """
    spread = math.sqrt((n_normal + n_anomalous + 1) / (12 * n_normal * n_anomalous))
    return min(1.0, 0.5 + _BEST_OF_FOUR * spread)
