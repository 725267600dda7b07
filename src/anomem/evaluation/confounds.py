"""Trivial features of images, the AUROC that each reaches alone, and the check that they explain a method's figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self, TypeAlias

import numpy as np

from anomem import metrics
from anomem.data.labelled_images import Images
from anomem.data.sources import ImageSource
from anomem.runtime.pixels import Reading
from anomem.types import UInt8Image

__all__ = [
    "FEATURES",
    "ConfoundCheck",
    "GreyRecorder",
    "Trivial",
    "TrivialFigures",
    "check_confound",
    "direction_free_auroc",
    "grey_moments",
    "luck_limit",
    "trivial_features",
    "trivial_figures",
]

Trivial: TypeAlias = tuple[float, float, float, float]
"""Mean and standard deviation of an image's grey, number of its pixels, bytes of its file; NaN where not known."""


@dataclass(frozen=True)
class TrivialFigures:
    """AUROC of single trivial features on some images, in the better direction.

    Values near the detector's AUROC mean that normal and anomalous images can be separated without looking for defects:
    they may differ in exposure, camera or compression. None where a feature is not known for every image: images in
    memory have no file.
    """

    mean_grey: float | None
    std_grey: float | None
    image_size: float | None
    file_size: float | None


FEATURES = tuple(field.name for field in fields(TrivialFigures))
"""Names of the trivial features, in the order of `Trivial`."""


def trivial_figures(features: Sequence[Trivial], labels: Sequence[int]) -> TrivialFigures:
    """Return the AUROC of each trivial feature alone.

    Parameters
    ----------
    features : sequence of Trivial, length N
    labels : sequence of int, length N
        0 normal, 1 anomalous; both must occur.

    Returns
    -------
    TrivialFigures
        Fractions from 0.5 to 1.
    """
    columns = np.asarray(features, dtype=np.float64).T
    return TrivialFigures(
        *(direction_free_auroc(column.tolist(), labels) if np.isfinite(column).all() else None for column in columns)
    )


def direction_free_auroc(values: Sequence[float], labels: Sequence[int]) -> float:
    """Return the AUROC of a feature that may point either way: the larger of a and 1 - a."""
    area = metrics.auroc(np.asarray(values, dtype=np.float64), np.asarray(labels))
    return max(area, 1.0 - area)


def trivial_features(images: Images, recorder: GreyRecorder, *, of: Iterable[int] | None = None) -> list[Trivial]:
    """Return the trivial features of images that were read through a recorder.

    Parameters
    ----------
    images : Images
    recorder : GreyRecorder
        Wraps the source of `images`; its records are cleared.
    of : iterable of int, optional
        Positions; by default all. The other images have NaN throughout.

    Returns
    -------
    list of Trivial
        One per image.
    """
    found: list[Trivial] = [(math.nan,) * 4] * len(images)
    for i in map(int, range(len(images)) if of is None else of):
        found[i] = (*recorder.take(i), images.file_size(i))
    return found


class GreyRecorder(ImageSource):
    """Image source that records mean and standard deviation of grey, and size, of the images it loads.

    The images are decoded for the detector anyway; recording three numbers saves a second pass over the set.

    Parameters
    ----------
    source : ImageSource
        Where the images come from.
    """

    def __init__(self, source: ImageSource) -> None:
        self._source, self.reading = source, source.reading
        self._noted: dict[int, tuple[float, float, float]] = {}

    def __len__(self) -> int:
        return len(self._source)

    def load(self, i: int) -> UInt8Image:
        """Return the image and record its features."""
        image = self._source.load(i)
        self._noted[i] = (*grey_moments(image), float(image.shape[0] * image.shape[1]))
        return image

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Return the image with its content hash, and record its features."""
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
        """Return some of the images, without recording."""
        return self._source.subset(indices)

    def with_reading(self, reading: Reading) -> Self:
        """Read the images otherwise; their features are noted here all the same."""
        self._source, self.reading = self._source.with_reading(reading), reading
        return self

    def take(self, i: int) -> tuple[float, float, float]:
        """Return and clear the record of an image, its number of pixels last; NaN where it was not read."""
        return self._noted.pop(i, (np.nan, np.nan, np.nan))


def grey_moments(image: UInt8Image) -> tuple[float, float]:
    """Return mean and standard deviation of the mean of an image's three channels, 0 to 255.

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


@dataclass(frozen=True)
class ConfoundCheck:
    """Comparison of the best trivial feature with chance and with a method.

    Parameters
    ----------
    feature : str
        One of `FEATURES`; empty where none was measured.
    best : float or None
        AUROC of that feature alone.
    luck : float
        AUROC that the best of four meaningless features stays below in 95 of 100 sets of this size.
    confounded : bool
        True where the feature is near the method's AUROC, or near 1, and above chance.
    """

    feature: str
    best: float | None
    luck: float
    confounded: bool


def check_confound(areas: Mapping[str, float | None], auroc: float, n_normal: int, n_anomalous: int) -> ConfoundCheck:
    """Compare the best trivial feature with a method.

    Parameters
    ----------
    areas : mapping of str to float or None
        AUROC of each trivial feature alone; None where it was not measured.
    auroc : float
        Image AUROC of the method.
    n_normal, n_anomalous : int
        Judged images of each label, at least 1.

    Examples
    --------
    >>> check_confound({"mean_grey": 0.95, "file_size": None}, 0.99, 100, 100)
    ConfoundCheck(feature='mean_grey', best=0.95, luck=0.602..., confounded=True)
    >>> check_confound({"mean_grey": 0.80}, 0.95, 100, 100).confounded
    False
    """
    known = {name: area for name, area in areas.items() if area is not None}
    luck = luck_limit(n_normal, n_anomalous)
    if not known:
        return ConfoundCheck("", None, luck, confounded=False)
    feature = max(known, key=lambda name: known[name])
    near = min(_TRIVIAL_ALARM, auroc - _TRIVIAL_MARGIN)
    return ConfoundCheck(feature, known[feature], luck, known[feature] > luck and known[feature] >= near)


def luck_limit(n_normal: int, n_anomalous: int) -> float:
    """Return the AUROC that the best of four meaningless features stays below in 95 of 100 sets of this size.

    By the normal approximation of the Mann-Whitney statistic under the null hypothesis; each feature
    counts in its better direction.

    Examples
    --------
    >>> round(luck_limit(100, 100), 3), round(luck_limit(10, 10), 3)
    (0.602, 0.83)
    """
    spread = math.sqrt((n_normal + n_anomalous + 1) / (12 * n_normal * n_anomalous))
    return min(1.0, 0.5 + _BEST_OF_FOUR * spread)
