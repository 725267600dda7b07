"""The trivial features of images, noted while a detector reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np

from anomem.data.sources import ImageSource
from anomem.types import UInt8Image


class GreyWatch(ImageSource):
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

    def with_bits(self, bits: int) -> Self:
        """Read 16-bit samples as `bits` bits; what is noted is noted here all the same."""
        self._source = self._source.with_bits(bits)
        return self

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
