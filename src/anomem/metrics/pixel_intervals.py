"""Bootstrap intervals of pixel-level metrics over images, which are independent where their pixels are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from anomem.errors import ParameterError

PixelMetric = Literal["auroc", "aupro"]

Scores: TypeAlias = npt.NDArray[Any]
"""Scores, or the numbers of their bins."""

_Doubles: TypeAlias = npt.NDArray[np.float64]

N_EDGES = 1024
"""Numbers of quantiles of defect-free, and of defective pixels' scores, at which the bins end."""

SAMPLED = 1024
"""Number of an image's scores from which quantiles are computed."""

_DRAWS_AT_ONCE = 128
_AT_ONCE = 1 << 20


@dataclass
class ImagePixels:
    """Scores, or bins, of one image's pixels.

    Parameters
    ----------
    normal, defect : ndarray
        Scores of defect-free (N,) and defective pixels (D,).
    overlap : ndarray
        Share of its region per defective pixel, (D,).
    n_regions : int
        Number of regions of its mask.
    times : ndarray or None
        Number of pixels per entry of `normal`, (N,); None: one each.
    """

    normal: Scores
    defect: Scores
    overlap: _Doubles
    n_regions: int
    times: npt.NDArray[np.int64] | None = None


@dataclass
class PixelCounts:
    """Pixels of every image counted in bins of their score: the minimum that resampling images needs.

    Bins end at quantiles of the first images' scores, 8 bytes per bin and image for each of three counts; images may be
    added in several calls.
    """

    edges: Scores | None = None
    _rows: list[tuple[_Doubles, _Doubles, _Doubles, int]] = field(default_factory=list)

    def add(self, images: list[ImagePixels]) -> None:
        """Count the pixels of some images; the first call fixes the bins."""
        if self.edges is None:
            self.edges = _edges(images)
        for image in images:
            counted = _counted(self.edges, image.normal, image.times)
            found = _counted(self.edges, image.defect)
            overlap = _counted(self.edges, image.defect, image.overlap)
            self._rows.append((counted, found, overlap, image.n_regions))

    def interval(
        self, metric: PixelMetric, exact: float, *, fpr_limit: float, level: float, draws: int, seed: int
    ) -> tuple[float, float]:
        """Return a percentile interval around the exact value; images with and without defect are resampled apart.

        Raises
        ------
        ParameterError
            For a level outside (0, 1) or no draw.
        """
        if not 0.0 < level < 1.0:
            raise ParameterError(f"level={level} is not allowed; expected a number between 0 and 1")
        if draws < 1:
            raise ParameterError(f"draws={draws} is not allowed; expected at least 1")
        times = _multiplicities(np.asarray([row[3] > 0 for row in self._rows]), draws, seed)
        point = self._levels(metric, np.ones((1, len(self._rows))), fpr_limit)[0]
        parts = [times[i : i + _DRAWS_AT_ONCE] for i in range(0, draws, _DRAWS_AT_ONCE)]
        drawn = np.concatenate([self._levels(metric, part, fpr_limit) for part in parts])
        # Bins make ties of near scores; the shift is the same in every draw.
        low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0]) + (exact - point)
        return float(np.clip(low, 0.0, 1.0)), float(np.clip(high, 0.0, 1.0))

    def _levels(self, metric: PixelMetric, times: _Doubles, fpr_limit: float) -> _Doubles:
        """Return the metric where image i counts times[:, i] times: (draws, images) to (draws,)."""
        normal, defect, overlap = (np.stack([row[k] for row in self._rows]) for k in range(3))
        fpr = _from_the_top(times @ normal)
        if metric == "auroc":
            tpr = _from_the_top(times @ defect)
            return np.asarray([np.trapezoid(y, x) for x, y in zip(fpr, tpr, strict=True)])
        pro = _from_the_top(times @ overlap)
        return np.asarray([area_to(x, y, fpr_limit) / fpr_limit for x, y in zip(fpr, pro, strict=True)])


def area_to(x: _Doubles, y: _Doubles, limit: float) -> float:
    """Return the trapezoid area under the points (x rising) from 0 to ``limit``, interpolated there."""
    inside = int(np.searchsorted(x, limit, side="right"))
    area = float(np.trapezoid(y[:inside], x[:inside]))
    if inside == x.size:
        return area
    x0, x1, y0, y1 = x[inside - 1], x[inside], y[inside - 1], y[inside]
    at_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
    return area + float((limit - x0) * (y0 + at_limit) / 2.0)


def _counted(edges: Scores, values: Scores, weights: npt.NDArray[Any] | None = None) -> _Doubles:
    """Count values between edges, in pieces to bound memory."""
    counts: _Doubles = np.zeros(edges.size + 1)
    for start in range(0, values.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        places = np.searchsorted(edges, values[part], side="right")
        counts += np.bincount(places, weights=None if weights is None else weights[part], minlength=counts.size)
    return counts


def _edges(images: list[ImagePixels]) -> Scores:
    """Return quantiles of both kinds of pixels, from an even sample of each image."""
    shares = np.linspace(0.0, 1.0, N_EDGES)
    kinds = ([i.normal for i in images if i.normal.size], [i.defect for i in images if i.defect.size])
    samples = [np.concatenate([np.sort(p)[:: max(1, p.size // SAMPLED)] for p in parts]) for parts in kinds if parts]
    edges: Scores = np.unique(np.concatenate([np.quantile(sample, shares, method="higher") for sample in samples]))
    return edges


def _multiplicities(defective: npt.NDArray[np.bool_], draws: int, seed: int) -> _Doubles:
    """Return how often each draw takes each image, (draws, images)."""
    rng = np.random.default_rng(seed)
    times = np.zeros((draws, defective.size))
    for group in (np.flatnonzero(~defective), np.flatnonzero(defective)):
        if group.size:
            times[:, group] = rng.multinomial(group.size, np.full(group.size, 1.0 / group.size), size=draws)
    return times


def _from_the_top(counts: _Doubles) -> _Doubles:
    """Return the share at or above each bin's lower end from counts per bin, 0 to 1 as the threshold falls."""
    risen = np.cumsum(counts[:, ::-1], axis=1)
    return np.concatenate([np.zeros((len(counts), 1)), risen / risen[:, -1:]], axis=1)
