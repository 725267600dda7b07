"""Tables of runs: a row a method, a column a set or category, means at the end; the best and what equals it marked."""

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
"""Marks: the best of a column; a paired difference to it whose 95 % interval holds 0."""

SWEPT = "sweep"


@dataclass(frozen=True)
class Cell:
    """One entry.

    Parameters
    ----------
    mean : float
        Over repetitions, then over categories.
    sd : float or None
        Standard deviation over repetitions (seeds and draws); None where there is one.
    n : int
        Repetitions.
    interval : tuple of float or None
        95 % interval over test images, of one category.
    mark : str
        `BEST`, `EQUAL` or nothing.
    lacking : int
        Categories of the column that the row does not have.
    apart : bool
        Whether it was judged on other test images than the column's best, so that the two do not compare.
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
    """A method; `kind` is "ours", "peer" or "published"."""

    name: str
    kind: str
    cells: Mapping[str, Cell]
    label: str = ""
    value: Any = None
    runs: Mapping[Column, tuple[Run, ...]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Table:
    """One figure of one protocol at one setting, on some sets.

    Parameters
    ----------
    name : str
        Unique among a report's tables; a file's stem.
    protocol, sweep, metric : str
        ``sweep`` is empty where nothing is varied.
    title, setting, trial : str
        In words; ``trial`` says what makes the lines tries, empty of results.
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
        """Rows of lines, published ones left out."""
        return tuple(row for row in self.rows if row.kind != "published")

    @property
    def whole(self) -> TableColumn:
        """The column over all categories: the mean, or the only one."""
        return next((column for column in self.columns if column.kind == "mean"), self.columns[-1])


def make_tables(runs: Sequence[Run], kept: StoredScores, confounds: Confounds) -> list[Table]:
    """Turn run lines into tables.

    Parameters
    ----------
    runs : sequence of Run
    kept : StoredScores
        Where kept scores lie, which make intervals of paired differences narrower.
    confounds : Confounds

    Returns
    -------
    list of Table
        Protocols in the order of `PROTOCOLS`, sweeps after them; within one, smaller k and gamma first.
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
    """Lines of a table agree in this."""
    if run.sweep is not None:
        return run.protocol, run.sweep.name, "", run.trial
    return run.protocol, "", canonical(_setting(run)), run.trial


def _setting(run: Run) -> dict[str, Any]:
    # How many a draw labels at most follows from the set; it shows in which images were judged.
    return {name: value for name, value in run.facts.items() if name != "most"}


def _place(runs: Sequence[Run]) -> tuple[Any, ...]:
    first = runs[0]
    known = list(PROTOCOLS)
    place = known.index(first.protocol) if first.protocol in known else len(known)
    amounts = [first.facts.get(name) for name in ("gamma", "k")]
    # "all" comes after every number.
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
    """Lines of each row, with its name.

    Variants of one label with other hyperparameters on other categories are one row (a preset for objects, one for
    textures); on the same category they are rows of their own, named by what differs.
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
    """The value of a sweep's point: a tuple of one is that one."""
    value: Any = None if run.sweep is None else run.sweep.value
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _differences(parts: Sequence[Sequence[Run]]) -> list[str]:
    """What each variant has that not all have."""
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
    # Of a run that is not finished some repetitions lack categories: they would show as spread.
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
    """Mark the best of every column and what equals it, among rows that were judged on the same images."""
    cells = [dict(row.cells) for row in rows]
    for column in columns:
        for place, changes in marks(rows, column, metric, kept).items():
            cells[place][column.key] = replace(cells[place][column.key], **changes)
    return [replace(row, cells=found) for row, found in zip(rows, cells, strict=True)]


def marks(rows: Sequence[Row], column: TableColumn, metric: str, kept: StoredScores) -> dict[int, dict[str, Any]]:
    """What is to be said of each row in a column.

    Only rows that have every category of the column, on the same test images, seeds and draws as another one, take
    part. Of them the best mean is `BEST`; `EQUAL` is whose paired difference to it has a 95 % interval that holds 0.
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
    """The most rows of which one shares a unit of every category with each: same images, seed and draw."""
    units = {
        i: [{(run.repeat, run.images) for run in rows[i].runs[key] if run.images is not None} for key in column.members]
        for i in whole
    }
    circles = [[j for j in whole if all(a & b for a, b in zip(units[i], units[j], strict=True))] for i in whole]
    return max(circles, key=len, default=[])
