"""From scores to the figures of a run line; the same figures as those of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from anomem.benchmark.fits import Fit, Seen
from anomem.benchmark.workspace import Trivial
from anomem.data.labelled_images import Images
from anomem.errors import InputError
from anomem.evaluation.figures import (
    ImageRow,
    at_alpha,
    direction_free_auroc,
    false_alarm_chance,
    image_figures,
    require_both_classes,
    roc_points,
    type_figures,
)
from anomem.metrics import PixelScores
from anomem.types import ANOMALOUS, NORMAL, FloatArray, IntArray

__all__ = ["Findings", "judge"]

FEW, MANY_DRAWS, FEW_DRAWS = 2000, 1000, 200
"""Above this many images, intervals come from fewer resamples: they are narrow, and each takes time."""
ROC_POINTS = 200
"""Corners of a ROC curve that a line keeps at most."""
FEATURES = ("mean_grey", "std_grey", "image_size", "file_size")


@dataclass(frozen=True)
class Findings:
    """What a unit found.

    Parameters
    ----------
    fit : Fit
        The fit that was judged.
    figures : mapping
        Plain values, as they stand in the line.
    seen : Seen or None
        What it was judged by.
    positions : ndarray of intp or None
        Which images of `images` were judged.
    images : Images or None
    """

    fit: Fit
    figures: Mapping[str, Any]
    seen: Seen | None = None
    positions: IntArray | None = None
    images: Images | None = field(default=None, repr=False)

    @property
    def scores(self) -> FloatArray:
        """Scores of the judged images, in their order; empty where none were judged one by one."""
        if self.seen is None or self.positions is None:
            return np.zeros(0, np.float32)
        return self.seen.scores[self.positions]


def judge(
    fit: Fit,
    seen: Seen,
    images: Images,
    trivial: Sequence[Trivial],
    *,
    maps: bool = False,
    among: Sequence[int] | IntArray | None = None,
    unseen: frozenset[int] = frozenset(),
    extra: Mapping[str, Any] | None = None,
) -> Findings:
    """Judge scores of labelled images.

    Parameters
    ----------
    fit : Fit
    seen : Seen
        What the fit's detector said of all of `images`.
    images : Images
    trivial : list of Trivial
        Of all of them.
    maps : bool
        Whether to judge the maps of `seen`, all of them.
    among : sequence of int, optional
        Judge these images alone.
    unseen : frozenset of int
        Content hashes of further images that must not be judged.
    extra : mapping, optional
        Further figures.

    Returns
    -------
    Findings
        Images that the detector was made from, by content, are left out.

    Raises
    ------
    InputError
        Normal or anomalous images are missing.
    """
    used = fit.detector.digests_ | unseen
    wanted = np.arange(len(images)) if among is None else np.asarray(among, dtype=np.intp)
    kept = wanted[[seen.digests[i] not in used for i in wanted]]
    rows = _rows(fit, seen, images, kept)
    n_normal, n_anomalous = (int((images.labels[kept] == label).sum()) for label in (NORMAL, ANOMALOUS))
    require_both_classes(n_normal, n_anomalous)
    draws = MANY_DRAWS if len(rows) <= FEW else FEW_DRAWS
    calibration = fit.detector.calibration_
    decided = at_alpha(rows, calibration.alpha)
    figures = {
        "n_test": {"normal": n_normal, "anomalous": n_anomalous, "left_out": len(wanted) - len(kept)},
        "image": {**asdict(image_figures(rows, draws=draws)), "draws": draws},
        "pixel": _pixel_figures(seen) if maps else None,
        "types": {name: asdict(of_type) for name, of_type in type_figures(rows).items()},
        "at_alpha": asdict(decided),
        "promise": {
            "n_calibration": calibration.n,
            "threshold": calibration.threshold,
            "rate_limit_95": calibration.rate_limit_95,
            "chance": false_alarm_chance(decided.n_false, n_normal, calibration.n, calibration.alpha),
        },
        "trivial": _trivial_figures(trivial, images, kept),
        "roc": _roc(rows),
        **(extra or {}),
    }
    return Findings(fit, figures, seen, kept, images)


def _rows(fit: Fit, seen: Seen, images: Images, kept: IntArray) -> list[ImageRow]:
    if not len(kept):
        raise InputError(f"{images.name}: no image is left to judge: the model was made from all of them")
    scores = seen.scores[kept]
    calibration = fit.detector.calibration_
    p_values, decided = calibration.p_value(scores), calibration.decide(scores)
    return [
        ImageRow(
            images.source.name(int(i)),
            int(images.labels[i]),
            images.kinds[i] or None,
            float(scores[row]),
            float(p_values[row]),
            bool(decided[row]),
        )
        for row, i in enumerate(kept)
    ]


def _pixel_figures(seen: Seen) -> dict[str, Any] | None:
    pixels: PixelScores | None = seen.pixels
    if pixels is None or not pixels.n_regions:
        return None
    return {
        "auroc": pixels.auroc(),
        "auroc_ci": list(pixels.interval("auroc")),
        "aupro": pixels.aupro(),
        "aupro_ci": list(pixels.interval("aupro")),
        "n_images": pixels.n_images,
        "n_regions": pixels.n_regions,
        "n_without_mask": seen.n_without_mask,
    }


def _trivial_figures(trivial: Sequence[Trivial], images: Images, kept: IntArray) -> dict[str, float | None]:
    labels = images.labels[kept].tolist()
    columns = np.asarray([trivial[i] for i in kept]).T
    return {
        name: direction_free_auroc(column.tolist(), labels) if np.isfinite(column).all() else None
        for name, column in zip(FEATURES, columns, strict=True)
    }


def _roc(rows: Sequence[ImageRow]) -> dict[str, list[float]]:
    """The ROC curve, of long ones evenly spaced corners; the metrics beside it come from all of them."""
    points = roc_points(rows)
    chosen = np.unique(np.linspace(0, len(points.fpr) - 1, min(ROC_POINTS, len(points.fpr))).round().astype(int))
    return {"fpr": [points.fpr[i] for i in chosen], "tpr": [points.tpr[i] for i in chosen]}
