"""Results of an evaluation: a row per image, and the figures computed from the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from anomem import metrics
from anomem.data.labelled_images import Images
from anomem.errors import InputError
from anomem.evaluation.confounds import TrivialFigures
from anomem.runtime.fdr import least_rejected
from anomem.runtime.shift import Shift
from anomem.types import ANOMALOUS, NORMAL, BoolArray


@dataclass(frozen=True)
class ImageRow:
    """One judged image: its ground truth (`label`, 0 or 1; `type`; `mask`), score, decisions and stratum."""

    path: str
    label: int
    type: str | None
    score: float
    p_value: float
    anomalous: bool
    mask: str | None = None
    stratum: str | None = None
    anomalous_fdr: bool | None = None


@dataclass(frozen=True)
class SkippedImage:
    """Unreadable image, with the error."""

    path: str
    error: str


@dataclass(frozen=True)
class ImageFigures:
    """Image-level metrics, fractions from 0 to 1.

    `auroc_ci`, `ap_ci`, `f1_max_ci` and `fpr95_ci` are 95 % bootstrap intervals. `f1_max` is an oracle: its threshold
    is chosen on the labels of these images. `fpr95` is the false-alarm rate at which 95 % of the anomalies are found.
    """

    auroc: float
    auroc_ci: tuple[float, float]
    ap: float
    ap_ci: tuple[float, float]
    f1_max: float
    f1_max_ci: tuple[float, float]
    fpr95: float
    fpr95_ci: tuple[float, float]
    f1_max_is_oracle: bool = True


@dataclass(frozen=True)
class AtAlpha:
    """Figures of the calibrated decision (p-value <= alpha) on these images."""

    alpha: float
    false_alarm_rate: float
    detection_rate: float
    n_false: int
    n_missed: int


@dataclass(frozen=True)
class AtFdr:
    """Figures of the verdicts about all images together, at a false-discovery rate.

    Parameters
    ----------
    fdr : float
        Largest expected share of normals among the rejected, on average over batches.
    false_discovery_share : float
        Share of normals among the rejected of this batch; 0 where none is rejected.
    detection_rate : float
        Share of anomalous images that are rejected; NaN without any.
    n_rejected, n_false, n_missed : int
        Rejected images, normals among them, anomalous images not rejected.
    least_rejected : int
        Smallest number that can be rejected together; see `anomem.runtime.fdr.least_rejected`.
    """

    fdr: float
    false_discovery_share: float
    detection_rate: float
    n_rejected: int
    n_false: int
    n_missed: int
    least_rejected: int


@dataclass(frozen=True)
class Promise:
    """Promised false-alarm rate, and the probability of this many false alarms under it.

    Parameters
    ----------
    n_calibration : int
        Number of calibration normals.
    threshold : float
        The calibrated decision's threshold on the raw score; NaN with strata, each of which has its own.
    rate_limit_95 : float
        Upper limit, with 95 % confidence, of this calibration set's false-alarm rate.
    chance : float
        Probability of at least as many false alarms among these normals, if they are exchangeable
        with the calibration normals; see `false_alarm_chance`.
    """

    n_calibration: int
    threshold: float
    rate_limit_95: float
    chance: float


@dataclass(frozen=True)
class PixelFigures:
    """Pixel-level metrics over the `n_images` normals and masked anomalies, `n_regions` defects.

    `auroc_ci` and `aupro_ci` are 95 % bootstrap intervals over images. `n_without_mask` anomalous images have no mask,
    or an empty one, and are left out.
    """

    auroc: float
    auroc_ci: tuple[float, float]
    aupro: float
    aupro_ci: tuple[float, float]
    n_images: int
    n_regions: int
    n_without_mask: int


@dataclass(frozen=True)
class TypeFigures:
    """Figures of one defect type: its `n` images against all normals, and the number missed at alpha."""

    n: int
    auroc: float
    n_missed: int


@dataclass(frozen=True)
class RocPoints:
    """Corners of the ROC curve, from (0, 0) to (1, 1)."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a test set.

    Parameters
    ----------
    method : str
        Name of the detector's method.
    n_normal, n_anomalous : int
        Judged images of each label.
    n_left_out : int
        Images that the model was fitted, tuned, calibrated or labelled with, by content: not judged.
    n_unlabelled : int
        Images without a label: not judged.
    image, at_alpha, promise, pixel, types, trivial, roc
        The figures; `pixel` is None without masks, or where the method does not localize.
    shift : Shift or None
        Accepted normals compared with the calibration; see `anomem.runtime.shift.find_shift`.
    at_fdr : AtFdr or None
        Verdicts about all images together; None unless requested.
    results : tuple of ImageRow
        Every judged image, in the order given.
    skipped : tuple of SkippedImage
        Images that could not be read.
    images : Images
        The judged images, one per entry of `results`, as the source of pictures.
    """

    method: str
    n_normal: int
    n_anomalous: int
    n_left_out: int
    n_unlabelled: int
    image: ImageFigures
    at_alpha: AtAlpha
    promise: Promise
    pixel: PixelFigures | None
    types: Mapping[str, TypeFigures]
    trivial: TrivialFigures
    roc: RocPoints
    results: tuple[ImageRow, ...] = field(repr=False)
    skipped: tuple[SkippedImage, ...] = ()
    images: Images | None = field(default=None, repr=False, compare=False)
    shift: Shift | None = None
    at_fdr: AtFdr | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and finite numbers: the object of ``anomem evaluate --json``."""
        plain: dict[str, Any] = asdict(replace(self, images=None))
        del plain["images"]
        for level in ("image", "pixel"):
            figures = plain[level]
            plain[level] = figures and {k: list(v) if isinstance(v, tuple) else v for k, v in figures.items()}
        plain["roc"] = {"fpr": list(self.roc.fpr), "tpr": list(self.roc.tpr)}
        plain["results"], plain["skipped"] = list(plain["results"]), list(plain["skipped"])
        plain["n_skipped"] = len(self.skipped)
        return plain


def image_figures(rows: Sequence[ImageRow], *, draws: int = 1000, seed: int = 0) -> ImageFigures:
    """Return image-level metrics of judged images; all intervals use the same `draws` resamples.

    Raises
    ------
    InputError
        A label is absent, or a score is not finite.
    """
    scores, labels = scores_and_labels(rows)

    def interval(metric: metrics.Metric) -> tuple[float, float]:
        return metrics.bootstrap_interval(metric, scores, labels, draws=draws, seed=seed)

    return ImageFigures(
        auroc=metrics.auroc(scores, labels),
        auroc_ci=interval(metrics.auroc),
        ap=metrics.average_precision(scores, labels),
        ap_ci=interval(metrics.average_precision),
        f1_max=metrics.f1_max(scores, labels)[0],
        f1_max_ci=interval(lambda s, y: metrics.f1_max(s, y)[0]),
        fpr95=metrics.fpr_at_tpr(scores, labels, tpr=0.95),
        fpr95_ci=interval(metrics.fpr_at_tpr),
    )


@dataclass(frozen=True)
class NormalsEvaluation:
    """Evaluation of normal images alone: the false-alarm rate, without figures that need anomalous images.

    Parameters
    ----------
    method, n_normal, n_left_out, n_unlabelled, at_alpha, promise, results, skipped, shift, at_fdr
        As for `Evaluation`; ``at_alpha.detection_rate`` is NaN.
    """

    method: str
    n_normal: int
    n_left_out: int
    n_unlabelled: int
    at_alpha: AtAlpha
    promise: Promise
    results: tuple[ImageRow, ...]
    skipped: tuple[SkippedImage, ...]
    shift: Shift | None = None
    at_fdr: AtFdr | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of `Evaluation.to_dict`; None for figures that need anomalous images."""
        absent: dict[str, Any] = {
            "n_anomalous": 0,
            "image": None,
            "pixel": None,
            "types": {},
            "n_skipped": len(self.skipped),
        }
        return {**asdict(self), **absent}


def at_alpha(rows: Sequence[ImageRow], alpha: float) -> AtAlpha:
    """Count false alarms and misses of the calibrated decision."""
    normals = [row.anomalous for row in rows if row.label == NORMAL]
    anomalies = [row.anomalous for row in rows if row.label == ANOMALOUS]
    return AtAlpha(
        alpha=alpha,
        false_alarm_rate=sum(normals) / len(normals),
        detection_rate=sum(anomalies) / len(anomalies) if anomalies else math.nan,
        n_false=sum(normals),
        n_missed=len(anomalies) - sum(anomalies),
    )


def at_fdr(rows: Sequence[ImageRow], fdr: float, n_calibration: int) -> AtFdr:
    """Count the rejected of the verdicts about all images together."""
    rejected = [row.label for row in rows if row.anomalous_fdr]
    n_anomalous, n_false = sum(row.label == ANOMALOUS for row in rows), rejected.count(NORMAL)
    n_found = len(rejected) - n_false
    return AtFdr(
        fdr=fdr,
        false_discovery_share=n_false / max(len(rejected), 1),
        detection_rate=n_found / n_anomalous if n_anomalous else math.nan,
        n_rejected=len(rejected),
        n_false=n_false,
        n_missed=n_anomalous - n_found,
        least_rejected=least_rejected(n_calibration, len(rows), fdr),
    )


def type_figures(rows: Sequence[ImageRow]) -> dict[str, TypeFigures]:
    """Return figures of every named defect type against all normals, types in alphabetical order."""
    normals = [row for row in rows if row.label == NORMAL]
    found: dict[str, TypeFigures] = {}
    for name in sorted({row.type for row in rows if row.type and row.label == ANOMALOUS}):
        of_type = [row for row in rows if row.label == ANOMALOUS and row.type == name]
        missed = sum(not row.anomalous for row in of_type)
        auroc = metrics.auroc(*scores_and_labels(normals + of_type))
        found[name] = TypeFigures(len(of_type), auroc, missed)
    return found


def roc_points(rows: Sequence[ImageRow], most: int | None = None) -> RocPoints:
    """Return the corners of the ROC curve; points on a straight line between two others are dropped.

    Parameters
    ----------
    rows : sequence of ImageRow
    most : int, optional
        Maximum number of corners, evenly spaced, both ends included.
    """
    fpr, tpr, _ = metrics.roc_curve(*scores_and_labels(rows))
    across, up = np.diff(fpr), np.diff(tpr)
    # Rates are multiples of 1 / n: differences this small are rounding.
    bends = np.abs(across[:-1] * up[1:] - across[1:] * up[:-1]) > 1e-13
    kept = np.flatnonzero(np.r_[True, bends, True])
    if most is not None:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, min(most, len(kept))).round().astype(int))]
    return RocPoints(tuple(fpr[kept].tolist()), tuple(tpr[kept].tolist()))


def scores_and_labels(rows: Sequence[ImageRow]) -> tuple[np.ndarray[Any, Any], BoolArray]:
    """Return scores (N,) float64 and labels (N,) bool of judged images."""
    scores = np.asarray([row.score for row in rows], dtype=np.float64)
    return scores, np.asarray([row.label == ANOMALOUS for row in rows], dtype=bool)


def require_both_classes(n_normal: int, n_anomalous: int, others: str = "") -> None:
    """Raise unless normal and anomalous images are present; the error has their numbers."""
    if n_normal and n_anomalous:
        return
    raise InputError(
        f"an evaluation needs normal and anomalous images: found {n_normal} normal and "
        f"{n_anomalous} anomalous{others}; add what is missing, or use `score` for images "
        "without labels"
    )
