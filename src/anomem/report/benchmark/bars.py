"""Bars: a file of limits, each checked against a figure of committed lines."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from anomem.benchmark.run_file import read_runs
from anomem.errors import InputError
from anomem.report.benchmark.measurements import measured_value
from anomem.report.benchmark.runs import clean, finite

__all__ = ["Bar", "Outcome", "bar_values", "bars_csv", "check_bars", "find_figure", "read_bars"]

COLUMNS = ("bar", "file", "key", "against", "limit", "direction", "note")
SEPARATOR = " | "
_SUM = "+"
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Bar:
    """Limit for one figure.

    Parameters
    ----------
    name : str
    files : tuple of Path
        Files of lines that hold the figure.
    key : str
        Figure, as for `find_figure`.
    against : str
        Figure to subtract; empty: none.
    limit : float
    direction : str
        ">=" or "<=".
    note : str
    """

    name: str
    files: tuple[Path, ...]
    key: str
    against: str
    limit: float
    direction: str
    note: str


@dataclass(frozen=True)
class Outcome:
    """Bar with the figure found; `met` is True where the limit holds."""

    bar: Bar
    value: float
    met: bool


def read_bars(path: str | Path) -> list[Bar]:
    """Read a file of bars: CSV with the columns bar, file, key, against, limit, direction and note.

    Files are named relative to the file of bars, several separated by spaces.

    Raises
    ------
    InputError
        The file is absent, or a row has another form.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a file of bars") from error
    return [_bar(row, path, number) for number, row in enumerate(rows, start=2)]


def _bar(row: Mapping[str, Any], path: Path, number: int) -> Bar:
    if any(not isinstance(row.get(column), str) for column in COLUMNS):
        raise InputError(f"{path}: line {number} lacks a column; the columns are {', '.join(COLUMNS)}")
    try:
        limit = finite(float(row["limit"]))
    except ValueError:
        limit = None
    if limit is None or row["direction"] not in (">=", "<="):
        raise InputError(f"{path}: line {number} needs a number as limit and >= or <= as direction")
    files = tuple(path.parent / name for name in row["file"].split())
    return Bar(row["bar"], files, row["key"], row["against"], limit, row["direction"], row["note"])


def check_bars(path: str | Path) -> list[Outcome]:
    """Check every bar of a file against its figure.

    Raises
    ------
    InputError
        A bar's file cannot be read, or no line has its figure.
    """
    read = cache(read_runs)
    return [_checked(bar, [line for file in bar.files for line in read(file)]) for bar in read_bars(path)]


def _checked(bar: Bar, lines: Sequence[Mapping[str, Any]]) -> Outcome:
    try:
        value = find_figure(lines, bar.key)
        value -= find_figure(lines, bar.against) if bar.against else 0.0
    except InputError as error:
        raise InputError(f"bar {clean(bar.name)}: {error}") from error
    excess = value - bar.limit if bar.direction == ">=" else bar.limit - value
    return Outcome(bar, value, excess >= -_ROUNDING)


def bar_values(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return each bar with its outcome as plain values."""
    return [
        {"bar": o.bar.name, "found": o.value, "direction": o.bar.direction, "limit": o.bar.limit, "met": o.met}
        for o in outcomes
    ]


def bars_csv(outcomes: Sequence[Outcome]) -> str:
    """Write each bar with its outcome, one per line."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("bar", "found", "direction", "limit", "met", "note"))
    for o in outcomes:
        met = "yes" if o.met else "no"
        writer.writerow((o.bar.name, f"{o.value:.6g}", o.bar.direction, f"{o.bar.limit:g}", met, o.bar.note))
    return stream.getvalue()


def find_figure(lines: Sequence[Mapping[str, Any]], key: str) -> float:
    """Find one figure among lines.

    Parameters
    ----------
    lines : sequence of mapping
        Run lines, measurement lines or both.
    key : str
        Of measurement lines ``protocol | table | case | column``. Of run lines ``protocol | data | label | path`` or
        ``protocol | data | label | name=value ... | path``: the mean over seeds and draws, then over categories, of all
        lines without a sweep that agree in the facts of their task. ``data`` may join several sets by ``+``.

    Raises
    ------
    InputError
        No line has the figure.

    Examples
    --------
    >>> line = {"protocol": "speed", "task": {"table": "fits", "case": "tile"}, "figures": {"s": 2}}
    >>> find_figure([line], "speed | fits | tile | s")
    2.0
    """
    parts = key.split(SEPARATOR)
    found = [*_measured(lines, parts), *_run(lines, parts)] if len(parts) in (4, 5) else []
    if not found:
        raise InputError(f"no line has the figure {clean(key)!r}; correct the key")
    return statistics.fmean(found)


def _measured(lines: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> list[float]:
    of = [line for line in lines if "figures" in line and _case(line) == list(parts[:-1])]
    values = [measured_value(line["figures"].get(parts[-1])) for line in of]
    return [value for value in values if value is not None]


def _case(line: Mapping[str, Any]) -> list[Any]:
    return [line["protocol"], line["task"].get("table"), line["task"].get("case")]


def _run(lines: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> list[float]:
    """Return the mean of each category."""
    protocol, data, label = parts[:3]
    facts = dict(fact.partition("=")[::2] for fact in (parts[3].split() if len(parts) == 5 else ()))
    path, names = parts[-1].split("."), data.split(_SUM)
    by_category: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        named = line["protocol"] == protocol and line.get("data") in names and line.get("label") == label
        if not named or line.get("sweep") is not None:
            continue
        task = line.get("task") or {}
        if any(str(task.get(name)).lower() != value for name, value in facts.items()):
            continue
        value = finite(_at(line, path))
        if value is not None:
            apart = str(task.get("apart") or "")
            by_category.setdefault((str(line.get("data")), f"{line.get('category')} {apart}"), []).append(value)
    missing = [name for name in names if all(name != found for found, _ in by_category)]
    return [] if missing else [statistics.fmean(values) for values in by_category.values()]


def _at(line: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = line
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
