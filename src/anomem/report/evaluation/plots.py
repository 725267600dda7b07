"""Plots as inline SVG with the colours and font of the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from anomem.evaluation.figures import RocPoints
from anomem.report.drawing import PAGE, inline_svg, plain_axes

_LOG_FROM = 30.0


def score_histogram(
    normal: Sequence[float], anomalous: Sequence[float], threshold: float, label: str = "anomaly score"
) -> str:
    """Draw histograms of scores, normals above anomalies on one axis, with the threshold.

    Parameters
    ----------
    normal, anomalous : sequence of float
        Raw scores by label, at least one each.
    threshold : float
        Drawn across both.
    label : str
        Name of the score axis.

    Returns
    -------
    str
        An ``<svg>`` element. Each label has its own count scale; the score axis is
        logarithmic where positive scores span more than a factor of 30.
    """
    from matplotlib.figure import Figure

    edges, log = _edges(np.asarray([*normal, *anomalous], dtype=np.float64), threshold)
    figure = Figure(figsize=(5.4, 3.3))
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.14})
    for axes, scores, colour in ((upper, normal, PAGE.normal), (lower, anomalous, PAGE.anomalous)):
        counts, _ = np.histogram(np.asarray(scores, dtype=np.float64), edges)
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.85, linewidth=0)
        axes.axvline(threshold, color=PAGE.text, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_ylim(0, max(1.0, 1.08 * counts.max()))
        axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
        plain_axes(axes)
    if log:
        upper.set_xscale("log")
    upper.set_xlim(edges[0], edges[-1])
    upper.tick_params(axis="x", length=0, which="both")
    lower.set_xlabel(label, color=PAGE.quiet, fontsize=9)
    figure.supylabel("images", color=PAGE.quiet, fontsize=9, x=0.02)
    upper.annotate(
        "threshold",
        (threshold, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=PAGE.text,
        fontsize=9,
    )
    return inline_svg(figure, "histogram", "Histogram of anomaly scores by label")


def roc_plot(roc: RocPoints, operating: tuple[float, float]) -> str:
    """Plot the ROC curve with the operating point (false-alarm rate, detection rate) as a dot.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 3.3))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=PAGE.line, linewidth=1)
    axes.fill_between(roc.fpr, roc.tpr, color=PAGE.normal, alpha=0.1, linewidth=0)
    axes.plot(roc.fpr, roc.tpr, color=PAGE.normal, linewidth=2, clip_on=False)
    axes.plot(*operating, "o", color=PAGE.anomalous, markersize=7, clip_on=False, zorder=5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.set_xlabel("false alarms", color=PAGE.quiet, fontsize=9)
    axes.set_ylabel("anomalies found", color=PAGE.quiet, fontsize=9)
    plain_axes(axes)
    return inline_svg(figure, "roc", "ROC curve with the calibrated operating point")


def _edges(scores: npt.NDArray[np.float64], threshold: float) -> tuple[npt.NDArray[np.float64], bool]:
    """Return bin edges over all scores, one at the threshold; and True for a logarithmic axis.

    A score equal to the threshold is accepted, so the edge is just above it.
    """
    split = float(np.nextafter(threshold, np.inf))
    low, high = min(float(scores.min()), split), max(float(scores.max()), split)
    bins = int(np.clip(2 * np.sqrt(scores.size), 12, 48))
    if low > 0 and high / low > _LOG_FROM:
        logs = _steps_through(np.log(split), np.log(low), np.log(high), bins)
        edges = np.exp(logs)
        edges[np.argmin(np.abs(logs - np.log(split)))] = split
        return edges, True
    if high - low <= 1e-6 * max(abs(low), abs(high)) or high - low < np.finfo(np.float32).tiny:
        low, high = low - (abs(low) * 0.1 or 1.0), high + (abs(high) * 0.1 or 1.0)
    return _steps_through(split, low, high, bins), False


def _steps_through(anchor: float, low: float, high: float, bins: int) -> npt.NDArray[np.float64]:
    """Return equally spaced edges that include the anchor and cover low to high with a margin."""
    step = (high - low) / bins
    before, after = (int(np.floor(side / step)) + 1 for side in (anchor - low, high - anchor))
    return anchor + step * np.arange(-before, after + 1, dtype=np.float64)
