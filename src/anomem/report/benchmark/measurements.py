"""Measurement lines: figures of benchmark scripts other than runs of a method on an image set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomem.benchmark.run_file import read_runs
from anomem.errors import InputError
from anomem.report.benchmark.runs import clean, finite

__all__ = ["Measurement", "circumstances", "figure_words", "measured_value", "read_measurements", "sections", "split"]

_OTHER = "name a file written by a benchmark script"
_TEXT = 500


@dataclass(frozen=True)
class Measurement:
    """Measurement line.

    Parameters
    ----------
    protocol, title : str
        Name of the script, and the heading of its tables.
    table, case : str
        Row of a table: seconds of one setting, images per second of one runtime.
    figures : mapping of str to Any
        Column -> number, text, null, or a spread: ``mean``, ``sd`` and ``n``.
    line : mapping
        The line as read, with ``made_by``, ``command`` and ``notes``.
    """

    protocol: str
    title: str
    table: str
    case: str
    figures: Mapping[str, Any]
    line: Mapping[str, Any]

    @property
    def earlier(self) -> bool:
        """True for figures of an earlier script that no current script repeats as a whole."""
        return self.line.get("earlier") is True


def split(paths: Iterable[str | Path]) -> tuple[list[Path], list[Path]]:
    """Separate files of run lines from files of measurement lines, by their first line.

    Raises
    ------
    InputError
        A file cannot be read or holds other lines.
    """
    runs: list[Path] = []
    measured: list[Path] = []
    for path in dict.fromkeys(map(Path, paths)):
        first = next(iter(read_runs(path)), {})
        (measured if "figures" in first else runs).append(path)
    return runs, measured


def read_measurements(paths: Iterable[str | Path]) -> tuple[Measurement, ...]:
    """Read measurement lines in the order of the files.

    Raises
    ------
    InputError
        A line lacks its protocol, its table and case, or its figures.
    """
    return tuple(
        _measurement(line, f"{path}: line {number}")
        for path in paths
        for number, line in enumerate(read_runs(path), start=1)
    )


def _measurement(line: Mapping[str, Any], where: str) -> Measurement:
    task, figures = line.get("task"), line.get("figures")
    if not isinstance(task, Mapping) or not isinstance(figures, Mapping):
        raise InputError(f"{where}: task or figures is missing; {_OTHER}")
    named = (line.get("protocol"), line.get("title"), task.get("table"), task.get("case"))
    if not all(isinstance(name, str) and name for name in named):
        raise InputError(f"{where}: protocol, title, table or case is missing; {_OTHER}")
    protocol, title, table, case = map(str, named)
    return Measurement(protocol, title, table, case, figures, line)


def measured_value(value: object) -> float | None:
    """Return a figure as a number: the mean of a spread; None for text.

    Examples
    --------
    >>> measured_value({"mean": 2.5, "sd": 0.1, "n": 3}), measured_value(7), measured_value("7 ms")
    (2.5, 7.0, None)
    """
    return finite(value.get("mean")) if isinstance(value, Mapping) else finite(value)


def figure_words(value: object) -> str:
    """Format a figure: a mean with its standard deviation, figures by name, a number, text, or a dash.

    Examples
    --------
    >>> figure_words({"mean": 2.5, "sd": 0.1, "n": 3}), figure_words(None), figure_words(0.5), figure_words({"201": 7})
    ('2.5 ± 0.1', '–', '0.5', '201: 7')
    """
    if value is None:
        return "–"
    if isinstance(value, Mapping) and "mean" not in value:
        return ", ".join(f"{clean(str(name), _TEXT)}: {figure_words(figure)}" for name, figure in value.items())
    if isinstance(value, Mapping):
        spread = f" ± {value['sd']:g}" if finite(value.get("sd")) is not None and value.get("n", 1) > 1 else ""
        return f"{value.get('mean'):g}{spread}"
    number = finite(value)
    return clean(str(value), _TEXT) if number is None else f"{number:g}"


def sections(measurements: Sequence[Measurement], *, level: int = 2) -> list[str]:
    """Write Markdown lines: a section per script, with its tables, circumstances and notes."""
    by_protocol: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        by_protocol.setdefault(measurement.protocol, []).append(measurement)
    lines: list[str] = []
    for part in by_protocol.values():
        said = dict.fromkeys(filter(None, map(circumstances, part)))
        lines += [f"{'#' * level} {part[0].title}", "", *(f"{words}\n" for words in said)]
        for table in dict.fromkeys(measurement.table for measurement in part):
            lines += [f"**{table}**", "", *_table([m for m in part if m.table == table]), ""]
        notes = dict.fromkeys(clean(str(note), _TEXT) for m in part for note in m.line.get("notes") or ())
        lines += [*(f"- {note}" for note in notes), ""] if notes else []
    return lines


def circumstances(measurement: Measurement) -> str:
    """Write command, date, revision and machine of a measurement in one line."""
    made, measured = measurement.line.get("made_by") or {}, measurement.line.get("measured") or {}
    words = [
        f"`{measurement.line['command']}`" if measurement.line.get("command") else "",
        str(measured.get("started") or "")[:10],
        _revision(made),
        f"{made.get('cpu')}, {made.get('threads')} of {made.get('cores')} cores" if made.get("cpu") else "",
        *(f"{name} {made[name]}" for name in ("torch", "timm") if made.get(name)),
    ]
    return clean(" · ".join(filter(None, words)), 2 * _TEXT)


def _revision(made: Mapping[str, Any]) -> str:
    """Write the revision, with those of units measured at other revisions."""
    if not made.get("revision"):
        return ""
    units = dict.fromkeys(str(unit).partition(" ")[0] for unit in made.get("units") or ())
    others = ", ".join(unit for unit in units if unit != made["revision"])
    return f"revision {made['revision']}" + (f" (units of {others})" if others else "")


def _table(rows: Sequence[Measurement]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row.figures))
    lines = [f"| | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    for row in rows:
        cells = [row.case, *(figure_words(row.figures.get(column)) for column in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
