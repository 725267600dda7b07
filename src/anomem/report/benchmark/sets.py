"""Measured image sets: copies, splits, and the mark of unofficial ones."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anomem.errors import InputError
from anomem.report.benchmark.captions import set_title
from anomem.report.benchmark.columns import TableColumn
from anomem.report.benchmark.runs import clean
from anomem.report.benchmark.tables import Table

__all__ = ["MARK", "MARK_WORDS", "MeasuredSet", "marked", "read_sets", "with_marks"]

MARK = "°"
"""Mark after the name of a set with unofficial images or split."""

MARK_WORDS = f"{MARK}: reduced copies, or a split other than the official one; see the image sets."
COLUMNS = ("data", "official", "images", "split", "used")
_LONGEST = 400


@dataclass(frozen=True)
class MeasuredSet:
    """Measured image set.

    Parameters
    ----------
    data : str
        Name in benchmarks, without a variant.
    official : bool
        True where images and split are the provider's.
    images, split : str
        Size and compression; origin of the split.
    used : str
        "development" where defaults were chosen on it, else "report".
    """

    data: str
    official: bool
    images: str
    split: str
    used: str

    @property
    def title(self) -> str:
        """Name of the set, with its mark."""
        head, _, category = self.data.partition("/")
        return clean(f"{set_title(head)} {category}".strip()) + ("" if self.official else MARK)


def read_sets(path: str | Path) -> tuple[MeasuredSet, ...]:
    """Read a file of image sets: CSV with the columns data, official, images, split and used.

    Raises
    ------
    InputError
        The file is absent, or a row has another form.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a file of image sets") from error
    for number, row in enumerate(rows, start=2):
        if any(not row.get(column) for column in COLUMNS) or row["official"] not in ("yes", "no"):
            raise InputError(f"{path}: line {number} needs {', '.join(COLUMNS)}, official being yes or no")
    return tuple(
        MeasuredSet(
            row["data"],
            row["official"] == "yes",
            *(clean(row[name], _LONGEST) for name in ("images", "split", "used")),
        )
        for row in rows
    )


def marked(data: str, sets: Sequence[MeasuredSet]) -> bool:
    """Return True where a set, or the set that it is a variant of, is not the official one.

    Examples
    --------
    >>> marked("cifar10:coarse", [MeasuredSet("cifar10", False, "JPEG", "official", "report")])
    True
    """
    head, slash, category = data.partition("/")
    name = head.partition(":")[0] + slash + category
    return any(known.data in (name, name.partition("/")[0]) and not known.official for known in sets)


def with_marks(table: Table, sets: Sequence[MeasuredSet]) -> Table:
    """Mark the columns of unofficial sets, with a note below published figures."""
    columns = tuple(_with_mark(column, sets) for column in table.columns)
    altered = any(before is not after for before, after in zip(table.columns, columns, strict=True))
    if not altered or not any(row.kind == "published" for row in table.rows):
        return replace(table, columns=columns)
    note = f"Published figures are of the official images and splits; columns with {MARK} are not."
    return replace(table, columns=columns, notes=(*table.notes, note))


def _with_mark(column: TableColumn, sets: Sequence[MeasuredSet]) -> TableColumn:
    if not any(marked(data, sets) for data, _, _ in column.members):
        return column
    return replace(column, title=column.title + MARK)
