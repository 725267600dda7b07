"""Image sets and figures for benchmark scripts, by anomem's own evaluation; `common` needs no anomem."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import SETS, percent

from anomem.data.labelled_images import Images
from anomem.data.sources import Sample, read_dataset
from anomem.evaluation.confounds import GreyRecorder, trivial_features, trivial_figures
from anomem.evaluation.pixels import PixelTally
from anomem.metrics import auroc, bootstrap_interval
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
    tally = pixel_tally(samples, maps)
    found, left_out = tally.figures(), {"left_out": tally.n_without_mask}
    if found is None:
        return {"pixel_auroc": None, "aupro": None, **left_out}
    return {"pixel_auroc": percent(found.auroc), "aupro": percent(found.aupro), **left_out}


def pixel_tally(samples: Sequence[Sample], maps: Iterable[FloatArray]) -> PixelTally:
    """Gather the maps of samples, each (H, W) in the image's own frame."""
    tally = PixelTally(Images.of_samples("samples", samples))
    for position, (_, values) in enumerate(zip(samples, maps, strict=True)):
        tally.add(position, values)
    return tally


def trivial_level(paths: Sequence[Path], labels: np.ndarray[Any, Any]) -> dict[str, float | None]:
    """AUROC of each trivial feature, in the better direction, percent."""
    images = Images.of_samples("paths", [Sample(path) for path in paths])
    recorder = GreyRecorder(images.source)
    for i in range(len(images)):
        recorder.load(i)
    found = trivial_figures(trivial_features(images, recorder), labels.tolist())
    return {name: percent(getattr(found, name.replace(" ", "_"))) for name in TRIVIAL}


def _even(count: int, limit: int) -> np.ndarray[Any, Any]:
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))
