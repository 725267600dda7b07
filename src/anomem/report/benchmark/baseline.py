"""Comparison of every method with a baseline: paired differences over common units, per table and per column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from anomem.errors import InputError, suggestion
from anomem.metrics.paired import Comparison, compare
from anomem.report.benchmark.captions import METRIC_WORDS
from anomem.report.benchmark.columns import TableColumn
from anomem.report.benchmark.comparison import StoredScores, pairs_of
from anomem.report.benchmark.tables import Row, Table

__all__ = ["Versus", "choose_baseline", "per_column", "versus"]

DEFAULT = "anomem"


@dataclass(frozen=True)
class Versus:
    """Comparison of a method with the baseline, over their common units of a table's column."""

    table: Table
    column: TableColumn
    baseline: Row
    row: Row
    found: Comparison


def choose_baseline(tables: Sequence[Table], wanted: str | None) -> str:
    """Return the label of the baseline, the method that others are compared with.

    Parameters
    ----------
    tables : sequence of Table
    wanted : str or None
        A label, or a method's name where a single label has it. None: "anomem" where present, else the label with
        most rows.

    Raises
    ------
    InputError
        No line has this label.
    """
    labels: dict[str, int] = {}
    methods: dict[str, dict[str, None]] = {}
    for table in tables:
        for row in table.measured:
            labels[row.label] = labels.get(row.label, 0) + 1
            for runs in row.runs.values():
                methods.setdefault(runs[0].method, {})[row.label] = None
    if wanted is None:
        return DEFAULT if DEFAULT in labels else max(labels, key=lambda label: labels[label], default="")
    if wanted in labels:
        return wanted
    if len(methods.get(wanted, {})) == 1:
        return next(iter(methods[wanted]))
    raise InputError(f"--baseline {wanted}: no line has this label; {suggestion(wanted, labels)}")


def versus(tables: Sequence[Table], baseline: str, kept: StoredScores, *, demanded: bool = False) -> list[Versus]:
    """Compare every row with the baseline's row of its table.

    Parameters
    ----------
    tables : sequence of Table
    baseline : str
        A label.
    kept : StoredScores
    demanded : bool
        Raise an error where nothing can be compared.

    Returns
    -------
    list of Versus
        Without rows that share no unit with the baseline. In a sweep, each point is compared with the first.

    Raises
    ------
    InputError
        Nothing can be compared, and `demanded`.
    """
    found = [versus for table in tables for versus in _compared(table, [table.whole], baseline, kept)]
    if demanded and not found:
        raise InputError(
            f"--baseline {baseline}: no other method has the same images, seed and draw; choose another baseline"
        )
    return found


def per_column(tables: Sequence[Table], baseline: str, kept: StoredScores) -> list[Versus]:
    """Compare as `versus` does, within each set or category of the tables that have several."""
    found: list[Versus] = []
    for table in tables:
        single = [column for column in table.columns if column.kind == "one"]
        found += _compared(table, single, baseline, kept) if len(single) > 1 else ()
    return found


def _compared(table: Table, columns: Sequence[TableColumn], baseline: str, kept: StoredScores) -> Iterator[Versus]:
    against = next((row for row in table.measured if row.label == baseline), None)
    if against is None:
        return
    higher = METRIC_WORDS[table.metric].higher
    for column in columns:
        for row in table.measured:
            if row is against or (table.sweep and row.label != baseline):
                continue
            pairs = pairs_of(row.runs, against.runs, column.members, table.metric, kept)
            if pairs:
                yield Versus(table, column, against, row, compare(pairs, higher=higher))
