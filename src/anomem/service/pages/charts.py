"""Geometry of charts, drawn as SVG by the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HEIGHT", "WIDTH", "Bar", "bars", "curve", "gauge", "place_on"]

WIDTH = 1000
HEIGHT = 240
"""Size of a chart in units of its view box."""

_GAP = 2.0
_LEAST = 3.0


@dataclass(frozen=True)
class Bar:
    """Bar of a histogram, in units of the view box; `rejected`: above the threshold."""

    x: float
    y: float
    width: float
    height: float
    rejected: bool
    count: int


def bars(edges: Sequence[float], counts: Sequence[int], threshold: float | None) -> list[Bar]:
    """Return the bars of a histogram; those that hold anything have a height that can be seen.

    Examples
    --------
    >>> [(bar.x, bar.height, bar.rejected) for bar in bars([0, 1, 2], [4, 2], 1.5)]
    [(0.0, 240.0, False), (500.0, 120.0, False)]
    """
    most = max(counts, default=0)
    found = []
    for i, count in enumerate(counts):
        if count:
            x = place_on(edges, edges[i])
            height = max(_LEAST, HEIGHT * count / most)
            width = max(1.0, place_on(edges, edges[i + 1]) - x - _GAP)
            rejected = threshold is not None and edges[i] >= threshold
            found.append(Bar(x, HEIGHT - height, width, height, rejected, count))
    return found


def place_on(edges: Sequence[float], value: float) -> float:
    """Return the horizontal place of a value between the first and the last edge."""
    low, high = edges[0], edges[-1]
    return WIDTH * min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0


def curve(values: Sequence[float | None]) -> list[tuple[float, float]]:
    """Return points from left to right for values from 0 to 1; None leaves a place empty.

    Examples
    --------
    >>> curve([0.5, None, 1.0])
    [(0.0, 120.0), (1000.0, 0.0)]
    """
    step = WIDTH / max(1, len(values) - 1)
    return [(i * step, HEIGHT * (1 - value)) for i, value in enumerate(values) if value is not None]


def gauge(score: float, threshold: float, others: Sequence[float]) -> tuple[float, float]:
    """Return the places of a score and of the threshold on an axis that holds other scores too.

    The threshold stays between a quarter and three quarters of the axis, so that the distance to it can be seen.

    Examples
    --------
    >>> [round(place) for place in gauge(3.0, 2.0, [1.0, 9.0])]
    [357, 250]
    """
    below = threshold - min(score, threshold, *others)
    above = max(score, threshold, *others) - threshold
    axis = (threshold - max(below, above / 3), threshold + max(above, below / 3))
    return place_on(axis, score), place_on(axis, threshold)
