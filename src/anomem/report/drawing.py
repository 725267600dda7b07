"""Common parts of plots: colours, axes, labels beside lines, output as inline SVG or PNG files."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FILE", "MARKERS", "PAGE", "Ink", "drawing", "inline_svg", "plain_axes", "spread", "write_png"]


@dataclass(frozen=True)
class Ink:
    """Colours of a plot.

    Parameters
    ----------
    text, quiet, line, card : str
        Colours of main text, axes, grids and background.
    normal, anomalous : str
        Colours of the two labels.
    series : tuple of str
        Colours of methods, in order of importance. Distinct under any kind of colour vision, by lightness too;
        markers and labels repeat the distinction.
    """

    text: str
    quiet: str
    line: str
    card: str
    normal: str
    anomalous: str
    series: tuple[str, ...]


# matplotlib lacks CSS variables: it draws in these colours, which the page's variables then replace.
PAGE = Ink("#010101", "#020202", "#030303", "#060606", "#040404", "#050505", tuple(f"#0{n}0a0a" for n in range(1, 9)))
FILE = Ink(
    text="#1c2230",
    quiet="#606a7b",
    line="#dcdfe4",
    card="#ffffff",
    normal="#2b6cb0",
    anomalous="#d2571e",
    series=("#0b5fa5", "#d55e00", "#12866b", "#a3478b", "#b98900", "#3f9bd1", "#6b7280", "#7a3b12"),
)
"""Colours of files: the page's light theme."""

_CSS = {
    PAGE.text: "var(--ink)",
    PAGE.quiet: "var(--quiet)",
    PAGE.line: "var(--line)",
    PAGE.card: "var(--card)",
    PAGE.normal: "var(--normal)",
    PAGE.anomalous: "var(--anomalous)",
    **{colour: f"var(--s{place})" for place, colour in enumerate(PAGE.series, start=1)},
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_SIZES = {"font.size": 9.0, "axes.titlesize": 10.0}


@contextmanager
def drawing(salt: str = "anomem") -> Iterator[None]:
    """Set matplotlib up for drawing: text stays text, names are not parsed as formulas, output is deterministic."""
    import matplotlib as mpl

    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": salt, "text.parse_math": False, **_SIZES}
    with mpl.rc_context({**settings, "font.family": ["DejaVu Sans"]}):
        yield


def plain_axes(axes: Axes, ink: Ink = PAGE) -> None:
    """Reduce axes to two plain spines."""
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(ink.line)
    axes.tick_params(colors=ink.quiet, labelsize=8.5, length=3, which="both")
    axes.tick_params(which="minor", labelbottom=False)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart with the smallest sum of squared shifts.

    Parameters
    ----------
    places : sequence of float
        Preferred places.
    gap : float
        Minimum distance between neighbours; smaller where they do not fit.
    low, high : float
        Limits.

    Returns
    -------
    list of float
        In the order given.

    Examples
    --------
    >>> spread([0.0, 0.5, 9.0], 1.0, -5.0, 10.0)
    [-0.25, 0.75, 9.0]
    """
    count = len(places)
    if not count:
        return []
    step = min(gap, (high - low) / (count - 1)) if count > 1 else gap
    order = np.argsort(np.asarray(places, dtype=np.float64), kind="stable")
    # Minus the gaps, places must increase: an isotonic regression.
    blocks: list[tuple[float, int]] = []
    for rank, i in enumerate(order):
        mean, n = float(places[i]) - rank * step, 1
        while blocks and blocks[-1][0] > mean:
            other, m = blocks.pop()
            mean, n = (mean * n + other * m) / (n + m), n + m
        blocks.append((mean, n))
    limit = high - (count - 1) * step
    level = [min(max(mean, low), max(low, limit)) for mean, n in blocks for _ in range(n)]
    found = [0.0] * count
    for rank, i in enumerate(order):
        found[int(i)] = level[rank] + rank * step
    return found


def inline_svg(figure: Figure, prefix: str, title: str) -> str:
    """Serialise a figure for inlining, with page colours, page font and unique ids.

    Parameters
    ----------
    figure : Figure
        Drawn in the colours of `PAGE`.
    prefix : str
        Unique in the page; letters, digits and dashes.
    title : str
        Text for screen readers.
    """
    from html import escape

    buffer = io.StringIO()
    facts: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with drawing(prefix):
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.03, metadata=facts)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)  # older releases
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)
    for drawn, css in _CSS.items():
        svg = re.sub(rf"\b(fill|stroke): {drawn}\b", rf"\1: {css}", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure in the colours of `FILE`, on a white background."""
    with drawing():
        figure.savefig(
            path,
            format="png",
            dpi=170,
            facecolor=FILE.card,
            bbox_inches="tight",
            pad_inches=0.15,
            metadata={"Software": None},
        )
