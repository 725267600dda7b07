"""Metrics of run lines: their location in a line, and their format."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True)
class Metric:
    """Metric of run lines.

    Parameters
    ----------
    path : tuple of str
        Keys that lead to it.
    title : str
    interval : tuple of str
        Keys that lead to its 95 % interval; empty where there is none.
    fraction : bool
        True for values from 0 to 1, shown in percent.
    higher : bool
        True where more is better.
    tabled : bool
        True where it has its own tables.
    """

    path: tuple[str, ...]
    title: str
    interval: tuple[str, ...] = ()
    fraction: bool = True
    higher: bool = True
    tabled: bool = True


METRICS: dict[str, Metric] = {
    "image_auroc": Metric(("image", "auroc"), "image AUROC", ("image", "auroc_ci")),
    "image_ap": Metric(("image", "ap"), "average precision", ("image", "ap_ci"), tabled=False),
    "pixel_auroc": Metric(("pixel", "auroc"), "pixel AUROC", ("pixel", "auroc_ci")),
    "aupro": Metric(("pixel", "aupro"), "AUPRO", ("pixel", "aupro_ci")),
    "accuracy": Metric(("accuracy",), "accuracy"),
    "distance_variance": Metric(("distance_variance",), "distance variance", fraction=False, higher=False),
    "distance_variance_scale_free": Metric(
        ("distance_variance_scale_free",), "distance variance, scale-free", fraction=False, higher=False
    ),
    "false_alarm_rate": Metric(("splits", "rate"), "false alarms", higher=False, tabled=False),
    "detection_rate": Metric(("splits", "detection"), "detected", tabled=False),
}
"""Every averaged metric, in the order of tables."""
