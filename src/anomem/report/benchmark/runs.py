"""Run lines read for a report: from several files, checked, with what tables need to know of each made plain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from anomem.benchmark.means import METRICS
from anomem.benchmark.run_file import read_runs
from anomem.benchmark.unit import canonical
from anomem.detectors import DETECTORS
from anomem.errors import InputError

__all__ = ["FEATURES", "Run", "Runs", "clean", "finite", "read_all"]

FEATURES = ("mean_grey", "std_grey", "image_size", "file_size")
"""What the confound check looks at, as lines name it."""

NO_FRACTIONS = ("distance_variance", "distance_variance_scale_free")
"""Figures that may exceed 1."""

_NOT_SETTING = ("draw", "apart", "against")
_LEVELS = {"image_auroc": ("image", "auroc_ci"), "image_ap": ("image", "ap_ci")}
_LEVELS |= {"pixel_auroc": ("pixel", "auroc_ci"), "aupro": ("pixel", "aupro_ci")}
_NORMAL_95 = 1.959964
_LONGEST = 120
_OTHER = "name a file that anomem bench has written, or mend the line"

Column = tuple[str, str, str]
"""Data, category, and the type or set that a task sets apart: what a table has a column for."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run line.

    Parameters
    ----------
    line : mapping
        As it was read.
    where : str
        File and line number, for messages.
    protocol, method, label : str
        ``label`` is what tables call the method.
    family : str
        The set, with its variant.
    column : tuple of str
    facts : mapping
        What was asked, but for the draw and what is apart.
    repeat : tuple
        Seed and draw.
    values : mapping of str to float
        Every figure of `anomem.benchmark.means.METRICS` that the line has.
    intervals : mapping of str to (float, float)
        95 % bootstrap intervals over test images of those that have one.
    """

    line: Mapping[str, Any]
    where: str
    protocol: str
    method: str
    label: str
    family: str
    column: Column
    facts: Mapping[str, Any]
    repeat: tuple[int, int | None]
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]

    @property
    def peer(self) -> bool:
        """Whether another library was run."""
        return self.method not in DETECTORS

    @property
    def trial(self) -> tuple[Any, Any]:
        """Limits that make the line a try, not a result; (None, None) of results."""
        return self.line.get("limit"), self.line.get("dry_steps")

    @property
    def sweep(self) -> Mapping[str, Any] | None:
        """Name, parameter and value, where it is a point of a sweep."""
        found: Mapping[str, Any] | None = self.line.get("sweep")
        return found

    @cached_property
    def images(self) -> str | None:
        """Hash of the judged images; None where none were judged one by one."""
        found = self.line.get("images_sha256")
        return found if isinstance(found, str) and found else None

    @cached_property
    def parameters(self) -> str:
        """Hyperparameters given, as JSON of one form."""
        return canonical(self.line.get("parameters") or {})

    def error(self, metric: str) -> float | None:
        """Standard error of a figure over test images, from its interval; None where it has none."""
        if metric not in self.intervals:
            return None
        low, high = self.intervals[metric]
        return (high - low) / (2 * _NORMAL_95)

    def number(self, *path: str) -> float | None:
        """A finite number somewhere in the line; None for anything else."""
        value: Any = self.line
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return finite(value)


@dataclass(frozen=True)
class Runs:
    """All lines of a report.

    Parameters
    ----------
    runs : tuple of Run
    files : tuple of str
    notes : tuple of str
        What a reader must know about the files.
    """

    runs: tuple[Run, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_all(paths: Sequence[str | Path]) -> Runs:
    """Read run files.

    Parameters
    ----------
    paths : sequence of str or Path
        Of one format. A line that two files share is taken once.

    Returns
    -------
    Runs

    Raises
    ------
    InputError
        A file is no run file or is of another format, a line lacks what a table needs or holds a figure that cannot be
        one, two lines say different things about one unit of work, or there is no line at all.
    """
    runs: dict[str, Run] = {}
    by_unit: dict[str, Run] = {}
    notes: list[str] = []
    for path in dict.fromkeys(map(Path, paths)):
        doubled = 0
        for number, line in enumerate(read_runs(path), start=1):
            run = _run(line, f"{path}: line {number}")
            earlier = runs.get(str(line["key"])) or by_unit.get(_unit(run))
            if earlier is None:
                runs[str(line["key"])] = by_unit[_unit(run)] = run
            elif _said(earlier) == _said(run):
                doubled += 1
            else:
                raise InputError(f"{run.where} is of the same unit of work as {earlier.where}: leave one of them out")
        if doubled:
            notes.append(f"{path}: {doubled} lines stand in an earlier file too, and count once.")
        if _torn(path):
            notes.append(f"{path}: its last line was not finished and is left out; the bench that wrote it goes on.")
    if not runs:
        raise InputError(f"{', '.join(map(str, paths))}: no finished unit of work: run anomem bench first")
    return Runs(
        tuple(runs.values()), tuple(clean(str(path)) for path in paths), tuple(clean(note, 500) for note in notes)
    )


def clean(text: str, longest: int = _LONGEST) -> str:
    r"""Make a name printable: what cannot be shown becomes an escape, what is too long is cut.

    Examples
    --------
    >>> clean("a\x00b\udce9"), len(clean("a" * 1000))
    ('a\\x00b\\udce9', 120)
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _run(line: Mapping[str, Any], where: str) -> Run:
    named = {name: line.get(name) for name in ("protocol", "data", "category", "method")}
    for name, value in named.items():
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}: {name} is {value!r}, not a name: {_OTHER}")
    seed, task, sweep = line.get("seed"), line.get("task"), line.get("sweep")
    if type(seed) is not int:
        raise InputError(f"{where}: seed is {seed!r}, not a whole number: {_OTHER}")
    if not isinstance(task, Mapping) or not isinstance(line.get("parameters") or {}, Mapping):
        raise InputError(f"{where}: task and parameters must be objects: {_OTHER}")
    if sweep is not None and not (isinstance(sweep, Mapping) and {"name", "parameter", "value"} <= sweep.keys()):
        raise InputError(f"{where}: sweep needs name, parameter and value: {_OTHER}")
    for name, number in (("draw", task.get("draw")), *((n, line.get(n)) for n in ("limit", "dry_steps"))):
        if number is not None and type(number) is not int:
            raise InputError(f"{where}: {name} is {number!r}, not a whole number: {_OTHER}")
    data = str(named["data"])
    return Run(
        line=line,
        where=where,
        protocol=str(named["protocol"]),
        method=str(named["method"]),
        label=str(line.get("label") or named["method"]),
        family=_family(data, line.get("set")),
        column=(data, str(named["category"]), str(task.get("apart") or task.get("against") or "")),
        facts={name: value for name, value in task.items() if name not in _NOT_SETTING},
        repeat=(seed, task.get("draw")),
        values=_values(line, where),
        intervals=_intervals(line, where),
    )


def _family(data: str, title: Any) -> str:
    """The set; with its variant, where the name asked for has one."""
    name = title if isinstance(title, str) and title else data.partition("/")[0]
    head = data.partition("/")[0]
    return head if head.startswith(f"{name}:") else name


def _values(line: Mapping[str, Any], where: str) -> dict[str, float]:
    found = {}
    for metric, path in METRICS.items():
        value: Any = line
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            continue
        number = finite(value)
        if number is None or (metric not in NO_FRACTIONS and not 0 <= number <= 1):
            wanted = "a finite number" if metric in NO_FRACTIONS else "a fraction from 0 to 1"
            raise InputError(
                f"{where}: {'.'.join(path)} is {clean(repr(value), 30)}, not {wanted} or null: mend the line"
            )
        found[metric] = number
    return found


def _intervals(line: Mapping[str, Any], where: str) -> dict[str, tuple[float, float]]:
    found = {}
    for metric, (level, name) in _LEVELS.items():
        bounds = (line.get(level) or {}).get(name) if isinstance(line.get(level) or {}, Mapping) else None
        if bounds is None:
            continue
        numbers = [finite(bound) for bound in bounds] if isinstance(bounds, list) else []
        if len(numbers) != 2 or numbers[0] is None or numbers[1] is None or not 0 <= numbers[0] <= numbers[1] <= 1:
            raise InputError(f"{where}: {level}.{name} is {clean(repr(bounds), 40)}, not an interval: mend the line")
        found[metric] = (numbers[0], numbers[1])
    return found


def finite(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _unit(run: Run) -> str:
    """What a line is about, whatever its key: two lines of one unit would count as two repetitions."""
    names = ("protocol", "data", "category", "train", "task", "method", "label", "parameters", "seed")
    said = [run.line.get(name) for name in (*names, "limit", "dry_steps")]
    return canonical([*said, (run.sweep or {}).get("name"), (run.sweep or {}).get("value")])


def _said(run: Run) -> tuple[Any, ...]:
    return run.values, run.intervals, run.images, run.line.get("scores_sha256")


def _torn(path: Path) -> bool:
    with path.open("rb") as stream:
        content = stream.read()
    return not content.endswith(b"\n") and bool(content)
