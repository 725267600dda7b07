"""Tables of runs: a row per method, a column per set or category, means; the best and its equals are marked."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anomem.benchmark.unit import canonical
from anomem.metrics.paired import Comparison, compare
from anomem.report.benchmark.captions import METRIC_WORDS, PROTOCOLS, setting_words, shortened, trial_words
from anomem.report.benchmark.columns import TableColumn, table_columns
from anomem.report.benchmark.comparison import StoredScores, pairs_of
from anomem.report.benchmark.confounds import Confounds
from anomem.report.benchmark.runs import Column, Run, finite

__all__ = ["BEST", "EQUAL", "Cell", "Row", "Table", "make_tables", "marks", "shown_value"]

BEST, EQUAL = "best", "equal"
"""Marks: the best of a column; a paired difference to it whose 95 % interval contains 0."""


@dataclass(frozen=True)
class Cell:
    """Cell of a table.

    Parameters
    ----------
    mean : float
        Mean over repetitions, then over categories.
    sd : float or None
        Standard deviation over repetitions (seeds and draws); None for a single one.
    n : int
        Number of repetitions.
    interval : tuple of float or None
        95 % interval over test images; single categories only.
    mark : str
        `BEST`, `EQUAL` or nothing.
    lacking : int
        Number of the column's categories that the row lacks.
    apart : bool
        True where it was judged on other test images than the column's best, and cannot be compared.
    note : str
        Source of a published figure.
    """

    mean: float
    sd: float | None = None
    n: int = 1
    interval: tuple[float, float] | None = None
    mark: str = ""
    lacking: int = 0
    apart: bool = False
    note: str = ""


@dataclass(frozen=True)
class Row:
    """Row of a method; `kind` is "ours", "peer" or "published"."""

    name: str
    kind: str
    cells: Mapping[str, Cell]
    label: str = ""
    value: Any = None
    runs: Mapping[Column, tuple[Run, ...]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Table:
    """Table of one metric, protocol and setting, on some sets.

    Parameters
    ----------
    name : str
        Unique within a report; used as file stem.
    protocol, sweep, metric : str
        ``sweep`` is empty outside sweeps.
    title, setting, trial : str
        In words; ``trial`` has the limits of trials, and is empty for results.
    columns : tuple of TableColumn
    rows : tuple of Row
    notes : tuple of str
    """

    name: str
    protocol: str
    sweep: str
    metric: str
    title: str
    setting: str
    trial: str
    columns: tuple[TableColumn, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> tuple[Row, ...]:
        """Measured rows, without published ones."""
        return tuple(row for row in self.rows if row.kind != "published")

    @property
    def whole(self) -> TableColumn:
        """Column over all categories: the mean, or the only one."""
        return next((column for column in self.columns if column.kind == "mean"), self.columns[-1])


def make_tables(runs: Sequence[Run], kept: StoredScores, confounds: Confounds) -> list[Table]:
    """Make tables from run lines.

    Parameters
    ----------
    runs : sequence of Run
    kept : StoredScores
        Stored scores, which narrow intervals of paired differences.
    confounds : Confounds

    Returns
    -------
    list of Table
        Protocols in the order of `PROTOCOLS`, then sweeps; within each, smaller k and gamma first.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.protocol != "promise" and any(metric in run.values for metric in METRIC_WORDS):
            groups.setdefault(_group(run), []).append(run)
    made: list[Table] = []
    for part in sorted(groups.values(), key=_place):
        for metric in METRIC_WORDS:
            having = [run for run in part if metric in run.values]
            for columns in table_columns(having, confounds, metric):
                keys = {key for column in columns for key in column.members}
                of_columns = [run for run in having if run.column in keys]
                made.append(_table(of_columns, columns, metric, kept, f"table-{len(made) + 1}"))
    return made


def _group(run: Run) -> tuple[Any, ...]:
    """Return the key that the lines of a table share."""
    if run.sweep is not None:
        return run.protocol, run.sweep.name, "", run.trial
    return run.protocol, "", canonical(_setting(run)), run.trial


def _setting(run: Run) -> dict[str, Any]:
    # A draw's largest k follows from the set; the judged images depend on it.
    return {name: value for name, value in run.facts.items() if name != "most"}


def _place(runs: Sequence[Run]) -> tuple[Any, ...]:
    first = runs[0]
    known = list(PROTOCOLS)
    place = known.index(first.protocol) if first.protocol in known else len(known)
    amounts = [first.facts.get(name) for name in ("gamma", "k")]
    # "all" sorts after every number.
    numbers = [finite(amount) for amount in amounts]
    amount = [n if n is not None else float("inf") if a else 0.0 for n, a in zip(numbers, amounts, strict=True)]
    return first.sweep is not None, first.sweep.name if first.sweep else "", place, amount, first.trial != (None, None)


def _table(runs: Sequence[Run], columns: Sequence[TableColumn], metric: str, kept: StoredScores, name: str) -> Table:
    first = runs[0]
    rows = [_row(title, part, columns, metric) for title, part in _rows_of(runs)]
    marked = _marked(rows, columns, metric, kept)
    sweep = "" if first.sweep is None else first.sweep.name
    return Table(
        name=name,
        protocol=first.protocol,
        sweep=sweep,
        metric=metric,
        title=METRIC_WORDS[metric].title,
        setting="" if sweep else setting_words(first.protocol, _setting(first)),
        trial=trial_words(first),
        columns=tuple(columns),
        rows=tuple(marked),
        facts={} if sweep else _setting(first),
    )


def _rows_of(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Return name and lines of each row.

    Variants of one label on different categories are one row (a preset for objects, one for textures); on the same
    category they are separate rows, named by their differing hyperparameters.
    """
    labels: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        value = "" if run.sweep is None else canonical(run.sweep.value)
        details = f"{run.parameters} {canonical(run.facts.get('most'))}"
        labels.setdefault((run.label, value), {}).setdefault(details, []).append(run)
    rows = []
    for (label, _), variants in labels.items():
        parts = list(variants.values())
        taken = [run_column for part in parts for run_column in {run.column for run in part}]
        name = label
        if parts[0][0].sweep is not None:
            name = f"{name}, {shown_value(parts[0][0])}"
        if len(taken) == len(set(taken)):
            rows.append((name, [run for part in parts for run in part]))
        else:
            rows += [(f"{name} ({words})", part) for words, part in zip(_differences(parts), parts, strict=True)]
    return rows


def shown_value(run: Run) -> str:
    """Format the value of a sweep's point; a tuple of one as its element."""
    value: Any = None if run.sweep is None else run.sweep.value
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _differences(parts: Sequence[Sequence[Run]]) -> list[str]:
    """Describe, per variant, the hyperparameters that not all variants share."""
    given = [{**part[0].params, "most": part[0].facts.get("most")} for part in parts]
    shared = {
        key
        for key in given[0]
        if all(key in each and canonical(each[key]) == canonical(given[0][key]) for each in given)
    }
    words = [", ".join(f"{k} {shortened(str(v), 40)}" for k, v in each.items() if k not in shared) for each in given]
    return [text or "defaults" for text in words]


def _row(name: str, runs: Sequence[Run], columns: Sequence[TableColumn], metric: str) -> Row:
    by_column: dict[Column, tuple[Run, ...]] = {}
    for run in runs:
        by_column[run.column] = (*by_column.get(run.column, ()), run)
    cells = {column.key: _cell(by_column, column.members, metric) for column in columns}
    kind = "peer" if runs[0].peer else "ours"
    value = None if runs[0].sweep is None else runs[0].sweep.value
    there = {key: cell for key, cell in cells.items() if cell is not None}
    return Row(name, kind, there, runs[0].label, value, by_column)


def _cell(runs: Mapping[Column, Sequence[Run]], members: Sequence[Column], metric: str) -> Cell | None:
    there = [runs[key] for key in members if key in runs]
    if not there:
        return None
    each = [statistics.fmean(run.values[metric] for run in part) for part in there]
    by_repeat: dict[Hashable, list[float]] = {}
    for part in there:
        for run in part:
            by_repeat.setdefault(run.repeat, []).append(run.values[metric])
    # Repetitions of an unfinished run may lack categories, which would look like spread.
    complete = [statistics.fmean(values) for values in by_repeat.values() if len(values) == len(there)]
    interval = None
    if len(members) == 1:
        bounds = [run.intervals[metric] for run in there[0] if metric in run.intervals]
        if len(bounds) == len(there[0]):
            interval = (statistics.fmean(b[0] for b in bounds), statistics.fmean(b[1] for b in bounds))
    return Cell(
        mean=statistics.fmean(each),
        sd=statistics.stdev(complete) if len(complete) > 1 else None,
        n=len(complete),
        interval=interval,
        lacking=len(members) - len(there),
    )


def _marked(rows: Sequence[Row], columns: Iterable[TableColumn], metric: str, kept: StoredScores) -> list[Row]:
    """Mark the best of every column and its equals, among rows judged on the same images."""
    cells = [dict(row.cells) for row in rows]
    for column in columns:
        for place, changes in marks(rows, column, metric, kept).items():
            cells[place][column.key] = replace(cells[place][column.key], **changes)
    return [replace(row, cells=found) for row, found in zip(rows, cells, strict=True)]


def marks(rows: Sequence[Row], column: TableColumn, metric: str, kept: StoredScores) -> dict[int, dict[str, Any]]:
    """Return the fields of each row's cell that marking changes, for one column.

    Only rows with every category of the column, on the same test images, seeds and draws as another row, are compared.
    The best mean is `BEST`; a row is `EQUAL` where its paired difference to the best has a 95 % interval around 0.
    """
    higher = METRIC_WORDS[metric].higher
    whole = [i for i, row in enumerate(rows) if column.key in row.cells and not row.cells[column.key].lacking]

    def against(i: int, j: int) -> Comparison | None:
        pairs = pairs_of(rows[i].runs, rows[j].runs, column.members, metric, kept)
        return compare(pairs, higher=higher) if len({p.category for p in pairs}) == len(column.members) else None

    def level(i: int) -> float:
        mean = rows[i].cells[column.key].mean
        return mean if higher else -mean

    together = _largest_circle(rows, whole, column)
    if len(together) < 2:
        return {}
    best = max(together, key=level)
    found: dict[int, dict[str, Any]] = {i: {"apart": True} for i in whole if i not in together}
    found[best] = {"mark": BEST}
    for i in together:
        if i == best:
            continue
        compared = against(best, i)
        if compared is None or compared.low is None or compared.high is None:
            continue
        if (compared.low if higher else -compared.high) <= 0:
            found[i] = {"mark": EQUAL}
    return found


def _largest_circle(rows: Sequence[Row], whole: Sequence[int], column: TableColumn) -> list[int]:
    """Return the largest group of rows around one that shares a unit of every category with each.

    Shared units have the same images, seed and draw.
    """
    units = {
        i: [{(run.repeat, run.images) for run in rows[i].runs[key] if run.images is not None} for key in column.members]
        for i in whole
    }
    circles = [[j for j in whole if all(a & b for a, b in zip(units[i], units[j], strict=True))] for i in whole]
    return max(circles, key=len, default=[])
