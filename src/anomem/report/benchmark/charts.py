"""Charts other than line plots: ROC curves, AUROC by type, items in use, the promised rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from anomem.report.benchmark.false_alarms import FalseAlarms
from anomem.report.benchmark.runs import Run
from anomem.report.benchmark.tables import Row, Table
from anomem.report.drawing import FILE, MARKERS, PAGE, Ink, drawing, inline_svg, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Chart", "Line", "chart_figure", "chart_svg", "memory_chart", "promise_chart", "roc_charts", "type_charts"]

Colours = Mapping[str, int]
Doubles = npt.NDArray[np.float64]

MOST_CURVES, MOST_BARS, MOST_CHARTS = 6, 4, 8


@dataclass(frozen=True)
class Line:
    """Line of a chart, one per method: places, values, and names of places where they have names."""

    name: str
    label: str
    peer: bool
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """Chart with one pair of axes; `kind` is "roc", "types", "memory" or "promise"."""

    kind: str
    title: str
    lines: tuple[Line, ...]
    names: tuple[str, ...] = ()


def roc_charts(tables: Iterable[Table], first: str) -> list[Chart]:
    """Make a ROC chart per set for methods fitted without labels; several fits are averaged at equal false alarms."""
    return _charts(tables, first, MOST_CURVES, _roc_line, "roc")


def type_charts(tables: Iterable[Table], first: str) -> list[Chart]:
    """Make a chart per set with two or more defect types: AUROC of each type against all normals."""
    return _charts(tables, first, MOST_BARS, _type_line, "types")


def memory_chart(runs: Iterable[Run]) -> Chart | None:
    """Make the chart of items in effective use against items held, for the last scale that a fit reported."""
    found: dict[str, dict[tuple[float, float], None]] = {}
    for run in runs:
        if run.memory:
            found.setdefault(run.label, {}).update(dict.fromkeys(run.memory))
    if not found:
        return None
    lines = [
        Line(label, label, False, tuple(p[0] for p in points), tuple(p[1] for p in points))
        for label, points in found.items()
    ]
    return Chart("memory", "Items in use", tuple(lines[:MOST_CURVES]))


def promise_chart(kept: Iterable[FalseAlarms], first: str) -> Chart | None:
    """Make the chart of fresh normals rejected against the promised rate, a dot per set and rate."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in kept:
        if row.rate is not None and row.expected is not None:
            found.setdefault(row.method, []).append((row.expected, row.rate))
    lines = [
        Line(name, name, False, tuple(x for x, _ in points), tuple(y for _, y in points))
        for name, points in found.items()
    ]
    lines.sort(key=lambda line: line.label != first)
    return Chart("promise", "Promised false-alarm rate", tuple(lines[:MOST_CURVES])) if lines else None


def chart_svg(chart: Chart, colours: Colours, prefix: str) -> str:
    """Draw one chart as an inline ``<svg>`` element in the page's colours."""
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=_size(chart))
        _draw(figure.subplots(), chart, colours, PAGE, title=False)
        return inline_svg(figure, prefix, f"{_WORDS[chart.kind]}: {chart.title}")


def chart_figure(charts: Sequence[Chart], colours: Colours) -> Figure:
    """Draw charts of one kind for a file, four per row, with one legend."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    across = min(4, len(charts))
    down = math.ceil(len(charts) / across)
    width, height = _size(max(charts, key=lambda chart: len(chart.names)))
    named = {line.label: line for chart in charts for line in chart.lines}
    with drawing():
        figure = Figure(figsize=(across * (width + 0.3), down * (height + 0.3)), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False)
        for i, axes in enumerate(grid.flat):
            if i < len(charts):
                _draw(axes, charts[i], colours, FILE, title=True)
            else:
                axes.set_axis_off()
        handles = [
            Line2D([], [], color=_colour(line, colours, FILE), linestyle=_style(line), linewidth=2.2, label=line.name)
            for line in named.values()
        ]
        figure.legend(
            handles=handles, loc="outside lower left", ncols=min(6, len(handles)), frameon=False, labelcolor=FILE.quiet
        )
    return figure


_WORDS = {
    "roc": "ROC curves",
    "types": "AUROC by type",
    "memory": "Memory items in use",
    "promise": "False alarms found and promised",
}


def _charts(tables: Iterable[Table], first: str, most: int, line_of: Any, kind: str) -> list[Chart]:
    found = []
    for table in tables:
        if table.protocol != "localisation" or table.metric != "image_auroc" or table.sweep:
            continue
        for column in table.columns:
            if column.kind != "one":
                continue
            rows = [row for row in table.measured if column.key in row.cells]
            rows.sort(key=lambda row: (row.label != first, row.kind != "peer", -row.cells[column.key].mean))
            made = [(row, line_of(row.runs[column.members[0]])) for row in rows]
            chosen = [(row, points) for row, points in made if points is not None][:most]
            names = tuple(dict.fromkeys(name for _, points in chosen for name in points[2]))
            if not chosen or (kind == "types" and len(names) < 2):
                continue
            lines = tuple(_line(row, points, names) for row, points in chosen)
            found.append(Chart(kind, column.title, lines, names))
    return found


def _line(row: Row, points: tuple[Doubles, Doubles, tuple[str, ...]], names: Sequence[str]) -> Line:
    x, y, own = points
    places = tuple(float(names.index(name)) for name in own) if own else tuple(map(float, x))
    return Line(row.name, row.label, row.kind == "peer", places, tuple(map(float, y)))


def _roc_line(runs: Sequence[Run]) -> tuple[Doubles, Doubles, tuple[str, ...]] | None:
    curves = [curve for run in runs if (curve := run.roc) is not None]
    if len(curves) < 2:
        return (*curves[0], ()) if curves else None
    grid = np.unique(np.concatenate([np.linspace(0, 1, 101), *(x for x, _ in curves)]))
    # Shifted slightly, as a curve may rise vertically: the highest value at a place is used.
    levels = [np.interp(grid, x - 1e-12 * np.arange(len(x))[::-1], y) for x, y in curves]
    return np.r_[0.0, grid], np.r_[0.0, np.mean([np.maximum.accumulate(y) for y in levels], axis=0)], ()


def _type_line(runs: Sequence[Run]) -> tuple[Doubles, Doubles, tuple[str, ...]] | None:
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, area in run.types.items():
            values.setdefault(name, []).append(area)
    if not values:
        return None
    means = np.asarray([statistics.fmean(part) for part in values.values()])
    return np.arange(len(means), dtype=np.float64), means, tuple(values)


def _size(chart: Chart) -> tuple[float, float]:
    if chart.kind == "types":
        return 3.4, 0.75 + len(chart.names) * (0.13 + 0.15 * len(chart.lines))
    return 3.2, 3.0


def _draw(axes: Axes, chart: Chart, colours: Colours, ink: Ink, *, title: bool) -> None:
    plain_axes(axes, ink)
    if title:
        axes.set_title(chart.title, color=ink.text, loc="left", fontweight="bold")
    {"roc": _draw_roc, "types": _draw_types, "memory": _draw_memory, "promise": _draw_promise}[chart.kind](
        axes, chart, colours, ink
    )


def _draw_roc(axes: Axes, chart: Chart, colours: Colours, ink: Ink) -> None:
    axes.plot([0, 1], [0, 1], color=ink.line, linewidth=1)
    for line in reversed(chart.lines):
        axes.plot(line.x, line.y, color=_colour(line, colours, ink), linestyle=_style(line), linewidth=1.8)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.set_xlabel("false alarms", color=ink.quiet, fontsize=9)
    axes.set_ylabel("anomalies found", color=ink.quiet, fontsize=9)


def _draw_types(axes: Axes, chart: Chart, colours: Colours, ink: Ink) -> None:
    thick = 0.8 / len(chart.lines)
    for place, line in enumerate(chart.lines):
        heights = np.asarray(line.x) + (place - (len(chart.lines) - 1) / 2) * thick
        # Bars begin at chance: their length is the gain over guessing.
        colour = _colour(line, colours, ink)
        axes.barh(
            heights,
            np.asarray(line.y) - 0.5,
            0.8 * thick,
            left=0.5,
            facecolor="none" if line.peer else colour,
            edgecolor=colour,
            linewidth=1.0,
        )
    lowest = min(value for line in chart.lines for value in line.y)
    axes.set_xlim(min(0.5, math.floor(10 * lowest) / 10), 1.0)
    axes.axvline(0.5, color=ink.quiet, linewidth=0.8)
    axes.set_yticks(range(len(chart.names)), [name if len(name) < 25 else name[:24] + "…" for name in chart.names])
    axes.set_ylim(len(chart.names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    axes.set_xlabel("image AUROC, %; bars begin at chance", color=ink.quiet, fontsize=9)


def _draw_memory(axes: Axes, chart: Chart, colours: Colours, ink: Ink) -> None:
    largest = max(value for line in chart.lines for value in line.x)
    smallest = min(value for line in chart.lines for value in (*line.x, *line.y))
    axes.plot([smallest, largest], [smallest, largest], color=ink.line, linewidth=1)
    _dots(axes, chart, colours, ink)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("items held", color=ink.quiet, fontsize=9)
    axes.set_ylabel("items in effective use", color=ink.quiet, fontsize=9)


def _draw_promise(axes: Axes, chart: Chart, colours: Colours, ink: Ink) -> None:
    top = 1.08 * max(value for line in chart.lines for value in (*line.x, *line.y))
    axes.plot([0, top], [0, top], color=ink.line, linewidth=1)
    _dots(axes, chart, colours, ink)
    axes.set(xlim=(0, top or 1), ylim=(0, top or 1), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    axes.set_xlabel("promised, % of fresh normals", color=ink.quiet, fontsize=9)
    axes.set_ylabel("rejected, %", color=ink.quiet, fontsize=9)


def _dots(axes: Axes, chart: Chart, colours: Colours, ink: Ink) -> None:
    for line in reversed(chart.lines):
        marker = MARKERS[colours.get(line.label, 0) % len(MARKERS)]
        colour = _colour(line, colours, ink)
        axes.plot(
            line.x, line.y, marker, color=colour, markersize=6, alpha=0.8, markeredgecolor=ink.card, clip_on=False
        )


def _colour(line: Line, colours: Colours, ink: Ink) -> str:
    return ink.series[colours.get(line.label, 0) % len(ink.series)]


def _style(line: Line) -> Any:
    return (0, (4, 2)) if line.peer else "-"
