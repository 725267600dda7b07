"""How benchmarks read image sets and measure detectors; needs anomem, where `common` needs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import SETS, percent

from anomem.data.sources import PathSource, Sample, read_dataset
from anomem.evaluation.confounds import grey_moments
from anomem.evaluation.figures import direction_free_auroc
from anomem.metrics import PixelScores, auroc, bootstrap_interval
from anomem.runtime.images import read_mask
from anomem.types import ANOMALOUS, FloatArray

if TYPE_CHECKING:
    from anomem.detector import Detector

TRIVIAL = ("mean grey", "std grey", "file size")


def read_set(name: str, limit: int | None) -> tuple[list[Sample], list[Sample]]:
    """Training and test samples of a set in MVTec layout; `limit` keeps some of each type."""
    dataset = read_dataset(SETS[name].path)
    return thinned(dataset.train, limit), thinned(dataset.test, limit)


def thinned(samples: Iterable[Sample], limit: int | None) -> list[Sample]:
    """Evenly spaced samples, at most `limit` of each type; all without a limit."""
    kept = list(samples)
    if limit is None:
        return kept
    kinds: dict[str | None, list[Sample]] = {}
    for sample in kept:
        kinds.setdefault(sample.type, []).append(sample)
    chosen = [kind[int(i)] for kind in kinds.values() for i in _even(len(kind), limit)]
    return sorted(chosen, key=lambda sample: sample.path)


def labels_of(samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
    """(N,) 1 where anomalous."""
    return np.asarray([int(sample.label == ANOMALOUS) for sample in samples])


def fit_timed(detector: Detector, images: Any, **options: Any) -> float:
    """Fit; return the seconds."""
    started = time.perf_counter()
    detector.fit(images, **options)
    return time.perf_counter() - started


def image_level(scores: FloatArray, labels: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Image AUROC with its 95 % bootstrap interval, percent."""
    low, high = bootstrap_interval(auroc, scores, labels)
    return {"image_auroc": percent(auroc(scores, labels)), "image_low": percent(low), "image_high": percent(high)}


def pixel_level(samples: Sequence[Sample], maps: Iterable[FloatArray]) -> dict[str, Any]:
    """Pixel AUROC and AUPRO, percent; defective images whose mask is missing or empty are left out.

    Parameters
    ----------
    samples : list of Sample
        Of a test set.
    maps : iterable of ndarray
        For each sample its map (H, W) in the image's own frame.
    """
    pixels, left_out = pixel_scores(samples, maps)
    if not pixels.n_regions:
        return {"pixel_auroc": None, "aupro": None, "left_out": left_out}
    return {"pixel_auroc": percent(pixels.auroc()), "aupro": percent(pixels.aupro()), "left_out": left_out}


def pixel_scores(samples: Sequence[Sample], maps: Iterable[FloatArray]) -> tuple[PixelScores, int]:
    """What `pixel_level` measures with, and how many images it leaves out."""
    pixels, left_out = PixelScores(), 0
    for sample, values in zip(samples, maps, strict=True):
        mask = None if sample.mask is None else read_mask(sample.mask, (values.shape[0], values.shape[1]))
        if sample.label != ANOMALOUS:
            pixels.add(values)
        elif mask is None or not mask.any():
            left_out += 1
        else:
            pixels.add(values, mask)
    return pixels, left_out


def trivial_features(paths: Sequence[Path]) -> np.ndarray[Any, Any]:
    """(N, 3): mean and deviation of grey, and size of the file."""
    source = PathSource(paths)
    return np.asarray([(*grey_moments(source.load(i)), path.stat().st_size) for i, path in enumerate(paths)])


def trivial_level(features: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> dict[str, float | None]:
    """AUROC of each trivial feature, in the better direction, percent."""
    columns = zip(TRIVIAL, features.T, strict=True)
    return {name: percent(direction_free_auroc(column.tolist(), labels.tolist())) for name, column in columns}


def _even(count: int, limit: int) -> np.ndarray[Any, Any]:
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))
