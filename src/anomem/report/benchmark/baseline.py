"""Every method against one: paired differences over the units that both have done, table by table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anomem.errors import InputError, suggestion
from anomem.metrics.paired import Comparison, compare
from anomem.report.benchmark.captions import METRIC_WORDS
from anomem.report.benchmark.comparison import StoredScores, pairs_of
from anomem.report.benchmark.tables import Row, Table

__all__ = ["Versus", "choose_baseline", "versus"]

DEFAULT = "anomem"


@dataclass(frozen=True)
class Versus:
    """A method against the baseline, on what both have done of a table."""

    table: Table
    baseline: Row
    row: Row
    found: Comparison


def choose_baseline(tables: Sequence[Table], wanted: str | None) -> str:
    """Return the label of the method that others are compared with.

    Parameters
    ----------
    tables : sequence of Table
    wanted : str or None
        A label, or a method's name where one label alone has it. None: "anomem" where it is there, else the one that
        has most rows.

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
    raise InputError(f"--baseline {wanted}: no line is of it; {suggestion(wanted, labels)}")


def versus(tables: Sequence[Table], baseline: str, kept: StoredScores, *, demanded: bool = False) -> list[Versus]:
    """Compare every row with the baseline's, in every table that has both.

    Parameters
    ----------
    tables : sequence of Table
    baseline : str
        A label.
    kept : StoredScores
    demanded : bool
        Whether it is an error if there is nothing to compare.

    Returns
    -------
    list of Versus
        Rows that share no unit with the baseline are left out. In a sweep, each point is compared with the first.

    Raises
    ------
    InputError
        Nothing can be compared, and `demanded`.
    """
    found: list[Versus] = []
    for table in tables:
        own = [row for row in table.measured if row.label == baseline]
        if not own:
            continue
        for row in table.measured:
            against = own[0]
            if row is against or (table.sweep and row.label != baseline):
                continue
            pairs = pairs_of(row.runs, against.runs, table.whole.members, table.metric, kept)
            if pairs:
                compared = compare(pairs, higher=METRIC_WORDS[table.metric].higher)
                found.append(Versus(table, against, row, compared))
    if demanded and not found:
        raise InputError(
            f"--baseline {baseline}: no other method was judged on the same images, by the same seed and draw"
        )
    return found
