"""Line plots: a line a method, its standard error as a band, its name at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from anomem.report.benchmark.panels import Panel, Series
from anomem.report.drawing import FILE, MARKERS, PAGE, Ink, drawing, inline_svg, plain_axes, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curve_figure", "curve_svg", "draw_panel"]

Colours = Mapping[str, int]
"""Of a method's label the number of its colour, the same in all plots of a report."""

_WIDTH, _HEIGHT = 2.4, 2.1
_LABEL_WIDTH = 1.25
_LABEL_GAP = 0.145
"""Inches between the names of two lines."""


def curve_svg(panel: Panel, colours: Colours, prefix: str) -> str:
    """Draw one panel as an inline ``<svg>`` element in the page's colours."""
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(_WIDTH + _LABEL_WIDTH + 0.6, _HEIGHT + 0.5))
        axes = figure.add_axes(_box(figure, 0.55, 0.45))
        draw_panel(axes, panel, colours, PAGE, title=False)
        return inline_svg(figure, prefix, f"{panel.y_title} by {panel.x_title}: {panel.title}")


def curve_figure(panels: Sequence[Panel], colours: Colours) -> Figure:
    """Draw panels beside each other, three a row, for a file."""
    from matplotlib.figure import Figure

    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    cell_w, cell_h = _WIDTH + _LABEL_WIDTH + 0.6, _HEIGHT + 1.0
    with drawing():
        figure = Figure(figsize=(across * cell_w, down * cell_h))
        for i, panel in enumerate(panels):
            row, column = divmod(i, across)
            axes = figure.add_axes(_box(figure, column * cell_w + 0.55, (down - 1 - row) * cell_h + 0.5))
            draw_panel(
                axes, panel, colours, FILE, title=True, y_title=column == 0 or panel.y_title != panels[i - 1].y_title
            )
    return figure


def draw_panel(axes: Axes, panel: Panel, colours: Colours, ink: Ink, *, title: bool, y_title: bool = True) -> None:
    """Draw a panel into axes of the size that names at line ends are laid out for."""
    from matplotlib.ticker import MaxNLocator

    plain_axes(axes, ink)
    low, high = _y_range(panel)
    axes.set_ylim(low, high)
    places = [place for place, _ in panel.ticks]
    margin = 0.05 * (max(places) - min(places) or 1.0)
    axes.set_xlim(min(places) - margin, max(places) + margin)
    axes.grid(axis="y", color=ink.line, linewidth=0.6, alpha=0.8)
    axes.set_axisbelow(True)
    # The last drawn lies on top: that is the one that matters most.
    for series in reversed(panel.series):
        _draw_series(axes, series, colours.get(series.label, 0), ink)
    _name_ends(axes, panel.series, colours, ink)
    axes.set_xticks(places, [text for _, text in panel.ticks])
    _thin_ticks(axes, places)
    if panel.fraction:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}" if value <= 1 + 1e-9 else "")
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(panel.x_title, color=ink.quiet, fontsize=9)
    if y_title:
        axes.set_ylabel(panel.y_title, color=ink.quiet, fontsize=9)
    if title:
        axes.set_title(panel.title, color=ink.text, loc="left", pad=9, fontweight="bold")


def _draw_series(axes: Axes, series: Series, number: int, ink: Ink) -> None:
    colour = ink.series[number % len(ink.series)]
    x = np.asarray([point.place for point in series.points])
    y = np.asarray([point.mean for point in series.points])
    errors = np.asarray([point.error or 0.0 for point in series.points])
    if errors.any():
        axes.fill_between(
            x,
            y - errors,
            np.minimum(y + errors, 1.0) if y.max() <= 1 else y + errors,
            color=colour,
            alpha=0.16,
            linewidth=0,
        )
    style = (0, (4, 2)) if series.peer else "-"
    axes.plot(x, y, color=colour, linewidth=2.0, linestyle=style, solid_capstyle="round", clip_on=False)
    axes.plot(
        x,
        y,
        MARKERS[number % len(MARKERS)],
        color=ink.card if series.peer else colour,
        markersize=5.5,
        markeredgecolor=colour if series.peer else ink.card,
        markeredgewidth=1.2 if series.peer else 0.9,
        clip_on=False,
    )


def _name_ends(axes: Axes, series: Sequence[Series], colours: Colours, ink: Ink) -> None:
    """Write each line's name at its right end, moved apart where lines end close to each other."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    ends = [line.points[-1] for line in series]
    gap = _LABEL_GAP / _HEIGHT * (high - low)
    heights = spread([point.mean for point in ends], gap, low, high)
    label_x = right + 0.045 * (right - left)
    for line, end, height in zip(series, ends, heights, strict=True):
        colour = ink.series[colours.get(line.label, 0) % len(ink.series)]
        if abs(height - end.mean) > 0.3 * gap or end.place < right - 0.06 * (right - left):
            axes.plot(
                [end.place, label_x],
                [end.mean, height],
                color=colour,
                linewidth=0.7,
                alpha=0.55,
                clip_on=False,
                zorder=1,
            )
        value = f"{100 * end.mean:.1f}" if end.mean <= 1 else f"{end.mean:.3g}"
        name = line.name if len(line.name) <= 24 else line.name[:23] + "…"
        axes.text(
            label_x + 0.015 * (right - left),
            height,
            f"{name}  {value}",
            color=colour,
            fontsize=8.5,
            va="center",
            ha="left",
            clip_on=False,
        )


def _y_range(panel: Panel) -> tuple[float, float]:
    edges = [
        edge
        for line in panel.series
        for p in line.points
        for edge in (p.mean - (p.error or 0), p.mean + (p.error or 0))
    ]
    low, high = min(edges), max(edges)
    if panel.fraction:
        low, high = max(0.0, low), min(1.0, high)
    # At least a point, so that what is equal looks equal.
    room = max(0.08 * (high - low), 0.002 if panel.fraction else 0.0, 1e-12)
    short = max(0.0, 0.01 - (high - low)) if panel.fraction else 0.0
    return low - room - short, high + room


def _thin_ticks(axes: Axes, places: Sequence[float]) -> None:
    """Slant long names of values; they would run into each other."""
    longest = max((len(label.get_text()) for label in axes.get_xticklabels()), default=0)
    if longest * len(places) > 27:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")


def _box(figure: Figure, left: float, bottom: float) -> tuple[float, float, float, float]:
    width, height = figure.get_size_inches()
    return left / width, bottom / height, _WIDTH / width, _HEIGHT / height
