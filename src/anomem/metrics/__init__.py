"""Detection metrics of scores and maps: pure functions on arrays, numpy alone."""

from __future__ import annotations

from anomem.metrics.image import Metric, auroc, average_precision, bootstrap_interval, f1_max, fpr_at_tpr, roc_curve
from anomem.metrics.pixel import PixelScores, aupro, pixel_auroc

__all__ = [
    "Metric",
    "PixelScores",
    "aupro",
    "auroc",
    "average_precision",
    "bootstrap_interval",
    "f1_max",
    "fpr_at_tpr",
    "pixel_auroc",
    "roc_curve",
]
