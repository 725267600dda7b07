"""Line plots: a line per method, its standard error as a band, its name at its end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from anomem.report.benchmark.captions import METRIC_WORDS, set_title
from anomem.report.benchmark.columns import TableColumn
from anomem.report.benchmark.runs import finite
from anomem.report.benchmark.tables import Cell, Row, Table, shown_value
from anomem.report.drawing import FILE, MARKERS, PAGE, Ink, drawing, inline_svg, plain_axes, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curve_figure", "curve_svg", "draw_panel"]

Colours = Mapping[str, int]
"""Label of a method -> number of its colour, the same in all plots of a report."""

_WIDTH, _HEIGHT = 2.4, 2.1
_LABEL_WIDTH = 1.25
_LABEL_GAP = 0.145
"""Minimum distance between the names of two lines, inches."""


def curve_svg(panel: Panel, colours: Colours, prefix: str) -> str:
    """Draw one panel as an inline ``<svg>`` element in the page's colours."""
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(_WIDTH + _LABEL_WIDTH + 0.6, _HEIGHT + 0.5))
        axes = figure.add_axes(_box(figure, 0.55, 0.45))
        draw_panel(axes, panel, colours, PAGE, title=False)
        return inline_svg(figure, prefix, f"{panel.y_title} by {panel.x_title}: {panel.title}")


def curve_figure(panels: Sequence[Panel], colours: Colours) -> Figure:
    """Draw panels for a file, three per row."""
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
    """Draw a panel into axes whose size suits names at line ends."""
    from matplotlib.ticker import MaxNLocator

    plain_axes(axes, ink)
    low, high = _y_range(panel)
    axes.set_ylim(low, high)
    places = [place for place, _ in panel.ticks]
    margin = 0.05 * (max(places) - min(places) or 1.0)
    axes.set_xlim(min(places) - margin, max(places) + margin)
    axes.grid(axis="y", color=ink.line, linewidth=0.6, alpha=0.8)
    axes.set_axisbelow(True)
    # Most important last: the last line is drawn on top.
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
    """Write each line's name at its right end, moved apart where line ends are close."""
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
    # At least one percentage point, so that equal values look equal.
    room = max(0.08 * (high - low), 0.002 if panel.fraction else 0.0, 1e-12)
    short = max(0.0, 0.01 - (high - low)) if panel.fraction else 0.0
    return low - room - short, high + room


def _thin_ticks(axes: Axes, places: Sequence[float]) -> None:
    """Rotate long tick labels, which would overlap."""
    longest = max((len(label.get_text()) for label in axes.get_xticklabels()), default=0)
    if longest * len(places) > 27:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")


def _box(figure: Figure, left: float, bottom: float) -> tuple[float, float, float, float]:
    width, height = figure.get_size_inches()
    return left / width, bottom / height, _WIDTH / width, _HEIGHT / height


__all__ = ["MOST_SERIES", "Panel", "Point", "Series", "few_label_panels", "gamma_panels", "sweep_panels"]

MOST_SERIES = 8
"""Maximum number of lines per panel, for legibility."""

_MOST_LABELS = 1_000_000


@dataclass(frozen=True)
class Point:
    """Mean at a place of the axis, with its standard error over repetitions; None for a single one."""

    place: float
    mean: float
    error: float | None
    n: int


@dataclass(frozen=True)
class Series:
    """Line of a panel: its name, the method's label, which has a colour; `peer` is True for peers."""

    name: str
    label: str
    peer: bool
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """Panel with one pair of axes.

    Parameters
    ----------
    title, x_title, y_title : str
    ticks : tuple of (float, str)
    series : tuple of Series
    left_out : tuple of str
        Names of lines beyond `MOST_SERIES`.
    trial : str
    fraction : bool
        True for fractions, shown in percent.
    """

    title: str
    x_title: str
    y_title: str
    ticks: tuple[tuple[float, str], ...]
    series: tuple[Series, ...]
    left_out: tuple[str, ...] = ()
    trial: str = ""
    fraction: bool = True


@dataclass
class _Draft:
    title: str
    trial: str
    lines: dict[tuple[str, str], dict[Any, tuple[Row, Cell]]] = field(default_factory=dict)


def few_label_panels(tables: Iterable[Table], first: str = "") -> list[Panel]:
    """Make a panel per set: AUROC against the number of labelled defects.

    Parameters
    ----------
    tables : iterable of Table
        All tables of a report.
    first : str
        Label of the line that is drawn on top and never left out.
    """
    chosen = [t for t in tables if t.protocol == "few-labels" and t.metric == "image_auroc" and not t.sweep]
    chosen = [t for t in chosen if type(t.facts.get("k")) is int and 0 <= t.facts["k"] < _MOST_LABELS]
    plain = [t for t in chosen if not t.facts.get("maps")]
    drafts = _drafts(plain or chosen, "k", lambda t: ", with masks" if t.facts.get("masks") else "")
    ticks = sorted({k for draft in drafts for line in draft.lines.values() for k in line})
    return _panels(drafts, {k: math.log1p(k) for k in ticks}, "labelled defects", "image_auroc", first)


def gamma_panels(tables: Iterable[Table], first: str = "") -> list[Panel]:
    """Make a panel per set: AUROC against the share of labelled anomalies in training; parameters as above."""
    chosen = [t for t in tables if t.protocol == "one-vs-rest" and t.metric == "image_auroc" and not t.sweep]
    chosen = [t for t in chosen if finite(t.facts.get("gamma")) is not None]
    ways = {str(t.facts.get("labels")) for t in chosen if t.facts.get("gamma")}

    def suffix(table: Table) -> str:
        words = ["next class"] if table.facts.get("anomalies") == "one" else []
        words += ["anew"] if len(ways) > 1 and table.facts.get("labels") == "anew" else []
        return "".join(f", {word}" for word in words)

    drafts = _drafts(chosen, "gamma", suffix)
    ticks = sorted({g for draft in drafts for line in draft.lines.values() for g in line})
    return _panels(drafts, {g: 100 * g for g in ticks}, "γ, % labelled anomalies in training", "image_auroc", first)


def sweep_panels(tables: Iterable[Table], first: str = "") -> dict[str, list[Panel]]:
    """Make the panels of each sweep, one per figure and set: figure against value."""
    found: dict[str, list[Panel]] = {}
    for table in tables:
        if not table.sweep:
            continue
        values: dict[str, None] = {}
        parameter = ""
        for row in table.measured:
            run = next(iter(row.runs.values()))[0]
            values[shown_value(run)] = None
            parameter = "" if run.sweep is None else run.sweep.parameter
        places = {value: float(place) for place, value in enumerate(values)}
        for column in _columns(table):
            draft = _Draft(column.title, table.trial)
            for row in table.measured:
                if column.key in row.cells:
                    value, name = shown_value(next(iter(row.runs.values()))[0]), row.label
                    while value in draft.lines.get((name, ""), {}):  # the same sweep with other hyperparameters
                        name += "′"
                    draft.lines.setdefault((name, ""), {})[value] = (row, row.cells[column.key])
            title = parameter.replace("_", " ")
            found.setdefault(table.sweep, []).extend(_panels([draft], places, title, table.metric, first))
    return found


def _drafts(tables: Sequence[Table], fact: str, suffix: Any) -> list[_Draft]:
    """Collect cells by panel, line and place; the result without labels begins every line of a method."""
    drafts: dict[tuple[Any, ...], _Draft] = {}
    for table in tables:
        for column in _columns(table):
            title = set_title(column.family) if column.kind == "mean" else column.title
            draft = drafts.setdefault((column.members, table.trial), _Draft(title, table.trial))
            for row in table.measured:
                cell = row.cells.get(column.key)
                if cell is not None and not cell.lacking:
                    draft.lines.setdefault((row.name, suffix(table)), {})[table.facts[fact]] = (row, cell)
    for draft in drafts.values():
        for (name, words), line in draft.lines.items():
            start = draft.lines.get((name, ""), {}).get(0)
            if words and start is not None:
                line.setdefault(0, start)
    return [draft for draft in drafts.values() if any(len(line) > 1 for line in draft.lines.values())]


def _columns(table: Table) -> list[TableColumn]:
    """Return the columns that have panels: the mean for one set's classes, else every column."""
    if table.whole.kind == "mean" and table.whole.family:
        return [table.whole]
    return [column for column in table.columns if column.kind == "one"]


def _panels(drafts: Iterable[_Draft], places: dict[Any, float], x_title: str, metric: str, first: str) -> list[Panel]:
    words = METRIC_WORDS[metric]
    panels = []
    for draft in drafts:
        series = [_series(name, suffix, line, places) for (name, suffix), line in draft.lines.items() if line]
        # The first line is never left out; of the others, those with the highest values stay.
        series.sort(
            key=lambda s: (s.label != first, not s.peer, -max(p.mean for p in s.points) * (1 if words.higher else -1))
        )
        used = {point.place for s in series for point in s.points}
        panels.append(
            Panel(
                title=draft.title,
                x_title=x_title,
                y_title=words.title + (", %" if words.fraction else ""),
                ticks=tuple((place, _tick(value)) for value, place in places.items() if place in used),
                series=tuple(series[:MOST_SERIES]),
                left_out=tuple(s.name for s in series[MOST_SERIES:]),
                trial=draft.trial,
                fraction=words.fraction,
            )
        )
    return panels


def _series(name: str, suffix: str, line: dict[Any, tuple[Row, Cell]], places: dict[Any, float]) -> Series:
    row = next(iter(line.values()))[0]
    points = [
        Point(places[x], cell.mean, None if cell.sd is None else cell.sd / math.sqrt(cell.n), cell.n)
        for x, (_, cell) in line.items()
    ]
    return Series(name + suffix, row.label, row.kind == "peer", tuple(sorted(points, key=lambda p: p.place)))


def _tick(value: Any) -> str:
    return f"{100 * value:g}" if isinstance(value, float) else str(value)
