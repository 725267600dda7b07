"""What line plots show: few-label curves, gamma curves and sweeps, each as panels with a line for every method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from anomem.report.benchmark.captions import METRIC_WORDS, set_title
from anomem.report.benchmark.columns import TableColumn
from anomem.report.benchmark.runs import clean, finite
from anomem.report.benchmark.tables import Cell, Row, Table, shown_value

__all__ = ["MOST_SERIES", "Panel", "Point", "Series", "few_label_panels", "gamma_panels", "sweep_panels"]

MOST_SERIES = 8
"""Lines of one panel; more could not be told apart."""

_MOST_LABELS = 1_000_000


@dataclass(frozen=True)
class Point:
    """A mean at a place of the axis, with its standard error over repetitions, None of a single one."""

    place: float
    mean: float
    error: float | None
    n: int


@dataclass(frozen=True)
class Series:
    """A line: its name, the method's label, which has a colour, and whether it is a peer's."""

    name: str
    label: str
    peer: bool
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Parameters
    ----------
    title, x_title, y_title : str
    ticks : tuple of (float, str)
    series : tuple of Series
    left_out : tuple of str
        Names of lines beyond `MOST_SERIES`.
    trial : str
    fraction : bool
        Whether values are fractions, shown in percent.
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
    """AUROC against the number of labelled defects, a panel a set.

    Parameters
    ----------
    tables : iterable of Table
        All of a report.
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
    """AUROC against the share of labelled anomalies in training, a panel a set; parameters as above."""
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
    """A figure against the values of one hyperparameter: of each sweep its panels, one a figure and set."""
    found: dict[str, list[Panel]] = {}
    for table in tables:
        if not table.sweep:
            continue
        values: dict[str, None] = {}
        parameter = ""
        for row in table.measured:
            run = next(iter(row.runs.values()))[0]
            values[shown_value(run)] = None
            parameter = str((run.sweep or {}).get("parameter", ""))
        places = {value: float(place) for place, value in enumerate(values)}
        for column in _columns(table):
            draft = _Draft(column.title, table.trial)
            for row in table.measured:
                if column.key in row.cells:
                    value, name = shown_value(next(iter(row.runs.values()))[0]), clean(row.label)
                    while value in draft.lines.get((name, ""), {}):  # the same sweep with other hyperparameters
                        name += "′"
                    draft.lines.setdefault((name, ""), {})[value] = (row, row.cells[column.key])
            title = clean(parameter.replace("_", " "))
            found.setdefault(table.sweep, []).extend(_panels([draft], places, title, table.metric, first))
    return found


def _drafts(tables: Sequence[Table], fact: str, suffix: Any) -> list[_Draft]:
    """Cells by panel, line and place; what is the same without labels begins every line of a method."""
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
    """What has panels: the whole, of one set's classes; else each column."""
    if table.whole.kind == "mean" and table.whole.family:
        return [table.whole]
    return [column for column in table.columns if column.kind == "one"]


def _panels(drafts: Iterable[_Draft], places: dict[Any, float], x_title: str, metric: str, first: str) -> list[Panel]:
    words = METRIC_WORDS[metric]
    panels = []
    for draft in drafts:
        series = [_series(name, suffix, line, places) for (name, suffix), line in draft.lines.items() if line]
        # What comes first must not be left out; of the others those that reach furthest stay.
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
