"""Run line, parsed and cleaned: typed and printable content for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from anomem.benchmark.unit import canonical
from anomem.detectors import DETECTORS
from anomem.errors import InputError
from anomem.evaluation.confounds import FEATURES
from anomem.report.benchmark.figures import METRICS

__all__ = ["Column", "Cost", "Curve", "Decision", "Run", "Sweep", "clean", "finite", "run_of"]

Column: TypeAlias = tuple[str, str, str]
"""Key of a table column: data, category, and the held-out type or other set."""

Curve: TypeAlias = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Increasing places, and values, of a curve."""

_NOT_SETTING = ("draw", "apart", "against")
_NORMAL_95 = 1.959964
_LONGEST = 120
_OTHER = "name a file written by anomem bench, or correct the line"


@dataclass(frozen=True)
class Sweep:
    """Point of a sweep; `value` is a number, text, or a list of such."""

    name: str
    parameter: str
    value: Any


@dataclass(frozen=True)
class Decision:
    """Decision at alpha on the judged images; None where the line has no value."""

    alpha: float | None
    n_false: float | None
    n_missed: float | None
    false_alarm_rate: float | None
    detection_rate: float | None


@dataclass(frozen=True)
class Cost:
    """Seconds and megabytes (10**6 bytes) of a fit and of scoring; None where the line has no value.

    `from_cache` is True where maps of a backbone came from a cache, so that seconds and memory are not measurements.
    """

    fit_seconds: float | None
    images_per_second: float | None
    peak_mb: float | None
    state_mb: float | None
    from_cache: bool


@dataclass(frozen=True, eq=False)
class Run:
    """Finished unit of work. Text is printable; missing or malformed values are None or empty.

    Parameters
    ----------
    key : str
        As in the file.
    unit : str
        Canonical identity of the unit, independent of its key: lines with equal identities answer the same question.
    where : str
        File and line number, for messages.
    protocol, method, label : str
        ``label`` is the method's name in tables.
    set, family, group : str
        Name of the set; with its variant; "object", "texture" or nothing.
    development : bool
        True where defaults were chosen on the set.
    column : Column
    apart, against : str
        Held-out type; other set.
    facts : mapping
        Facts of the task, without draw, `apart` and `against`.
    repeat : tuple
        Seed and draw.
    params : mapping
        Hyperparameters given.
    parameters : str
        The same as canonical JSON.
    sweep : Sweep or None
    trial : tuple
        Limits of images and of steps, which make the line a trial; (None, None) for results.
    values : mapping of str to float
        Every figure of `METRICS` that the line has.
    intervals : mapping of str to (float, float)
        95 % intervals over test images, where the figure has one.
    images, scores : str or None
        Hashes of the judged images and of their scores; None where images were not judged one by one.
    n_normal, n_anomalous : float or None
        Judged images of each label.
    trivial : mapping of str to float
        AUROC of the trivial features.
    types : mapping of str to float
        AUROC of each type.
    decision : Decision
    roc : Curve or None
    memory : tuple of (float, float)
        Items held and items in effective use, as stages of the fit reported them.
    expected : float or None
        Exact false-alarm rate of a calibration set.
    within : tuple of bool
        Per split of a pool, True where its false alarms are within the 95 % quantile.
    cost : Cost
    made_by : mapping of str to str
        Software and hardware.
    """

    key: str
    unit: str
    where: str
    protocol: str
    method: str
    label: str
    set: str
    family: str
    group: str
    development: bool
    column: Column
    apart: str
    against: str
    facts: Mapping[str, Any]
    repeat: tuple[int, int | None]
    params: Mapping[str, Any]
    parameters: str
    sweep: Sweep | None
    trial: tuple[int | None, int | None]
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    images: str | None
    scores: str | None
    n_normal: float | None
    n_anomalous: float | None
    trivial: Mapping[str, float]
    types: Mapping[str, float]
    decision: Decision
    roc: Curve | None
    memory: tuple[tuple[float, float], ...]
    expected: float | None
    within: tuple[bool, ...]
    cost: Cost
    made_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def peer(self) -> bool:
        """True for runs of another library."""
        return self.method not in DETECTORS

    @property
    def alpha(self) -> float | None:
        """Promised false-alarm rate of the task."""
        return finite(self.facts.get("alpha"))

    def error(self, metric: str) -> float | None:
        """Return the standard error of a figure over test images, from its interval; None where it has none."""
        if metric not in self.intervals:
            return None
        low, high = self.intervals[metric]
        return (high - low) / (2 * _NORMAL_95)


def clean(text: str, longest: int = _LONGEST) -> str:
    r"""Return printable text: unprintable characters are escaped, long text is cut.

    Examples
    --------
    >>> clean("a\x00b\udce9"), len(clean("a" * 1000))
    ('a\\x00b\\udce9', 120)
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def finite(value: object) -> float | None:
    """Return a finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def run_of(line: Mapping[str, Any], where: str) -> Run:
    """Parse and clean one run line.

    Parameters
    ----------
    line : mapping
        From `anomem.benchmark.run_file.read_runs`.
    where : str
        File and line number, for messages.

    Raises
    ------
    InputError
        The line lacks required values, or has an impossible figure.
    """
    _check(line, where)
    task, sweep = line["task"], line.get("sweep")
    data, category, method = (clean(line[name]) for name in ("data", "category", "method"))
    apart, against = (clean(str(task.get(name) or "")) for name in ("apart", "against"))
    title = line.get("set")
    name = clean(title) if isinstance(title, str) and title else data.partition("/")[0]
    head = data.partition("/")[0]
    identity = ("protocol", "data", "category", "train", "task", "method", "label", "parameters", "seed")
    parameters = _current(method, line.get("parameters") or {})
    said = [{**line, "parameters": parameters}.get(fact) for fact in (*identity, "limit", "dry_steps")]
    return Run(
        key=str(line["key"]),
        unit=canonical([*said, *((sweep["name"], sweep["value"]) if sweep else (None, None))]),
        where=where,
        protocol=clean(line["protocol"]),
        method=method,
        label=clean(str(line.get("label") or line["method"])),
        set=name,
        family=head if head.startswith(f"{name}:") else name,
        group=clean(str(line.get("group") or "")),
        development=line.get("role") == "development",
        column=(data, category, apart or against),
        apart=apart,
        against=against,
        facts={clean(fact): _cleaned(value) for fact, value in task.items() if fact not in _NOT_SETTING},
        repeat=(line["seed"], task.get("draw")),
        params=_cleaned(parameters),
        parameters=canonical(parameters),
        sweep=sweep and _sweep(method, sweep),
        trial=(line.get("limit"), line.get("dry_steps")),
        values=_values(line, where),
        intervals=_intervals(line, where),
        images=_hash(line.get("images_sha256")),
        scores=_hash(line.get("scores_sha256")),
        n_normal=_number(line, "n_test", "normal"),
        n_anomalous=_number(line, "n_test", "anomalous"),
        trivial=_areas({feature: _at(line, ("trivial", feature)) for feature in FEATURES}),
        types=_areas({clean(str(kind)): _at(facts, ("auroc",)) for kind, facts in _mapping(line.get("types")).items()}),
        decision=Decision(*(_number(line, "at_alpha", name) for name in Decision.__dataclass_fields__)),
        roc=_curve(_mapping(line.get("roc"))),
        memory=_memory(line.get("history")),
        expected=_number(line, "splits", "expected"),
        within=_within(_at(line, ("splits", "each"))),
        cost=_cost(line),
        made_by=_made_by(line.get("made_by")),
    )


def _current(method: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return hyperparameters under today's names, so that lines of earlier versions are grouped with new ones."""
    if method not in DETECTORS or given.keys() <= {"preset"}:
        return given
    from anomem.detectors import get
    from anomem.params.names import current

    return current(get(method), given)


def _sweep(method: str, sweep: Mapping[str, Any]) -> Sweep:
    from anomem.detectors import get

    parameter = str(sweep["parameter"])
    if method in DETECTORS:
        parameter = get(method).former_names().get(parameter, parameter)
    return Sweep(clean(str(sweep["name"])), clean(parameter), _cleaned(sweep["value"]))


def _check(line: Mapping[str, Any], where: str) -> None:
    for name in ("protocol", "data", "category", "method"):
        value = line.get(name)
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}: {name} is {value!r}, not a name; {_OTHER}")
    seed, task, sweep = line.get("seed"), line.get("task"), line.get("sweep")
    if type(seed) is not int:
        raise InputError(f"{where}: seed is {seed!r}, not a whole number; {_OTHER}")
    if not isinstance(task, Mapping) or not isinstance(line.get("parameters") or {}, Mapping):
        raise InputError(f"{where}: task and parameters must be objects; {_OTHER}")
    if sweep is not None and not (isinstance(sweep, Mapping) and {"name", "parameter", "value"} <= sweep.keys()):
        raise InputError(f"{where}: sweep needs name, parameter and value; {_OTHER}")
    for name, number in (("draw", task.get("draw")), *((n, line.get(n)) for n in ("limit", "dry_steps"))):
        if number is not None and type(number) is not int:
            raise InputError(f"{where}: {name} is {number!r}, not a whole number; {_OTHER}")


def _values(line: Mapping[str, Any], where: str) -> dict[str, float]:
    found = {}
    for name, metric in METRICS.items():
        value = _at(line, metric.path)
        if value is None:
            continue
        number = finite(value)
        if number is None or (metric.fraction and not 0 <= number <= 1):
            wanted = "a fraction from 0 to 1" if metric.fraction else "a finite number"
            shown = clean(repr(value), 30)
            raise InputError(f"{where}: {'.'.join(metric.path)} is {shown}, not {wanted} or null; correct the line")
        found[name] = number
    return found


def _intervals(line: Mapping[str, Any], where: str) -> dict[str, tuple[float, float]]:
    found = {}
    for name, metric in METRICS.items():
        bounds = _at(line, metric.interval) if metric.interval else None
        if bounds is None:
            continue
        numbers = [finite(bound) for bound in bounds] if isinstance(bounds, list) else []
        if len(numbers) != 2 or numbers[0] is None or numbers[1] is None or not 0 <= numbers[0] <= numbers[1] <= 1:
            shown = clean(repr(bounds), 40)
            raise InputError(f"{where}: {'.'.join(metric.interval)} is {shown}, not an interval; correct the line")
        found[name] = (numbers[0], numbers[1])
    return found


def _cost(line: Mapping[str, Any]) -> Cost:
    return Cost(
        fit_seconds=_number(line, "measured", "seconds", "fit"),
        images_per_second=_number(line, "measured", "images_per_second"),
        peak_mb=_number(line, "measured", "peak_mb", "fit"),
        state_mb=_number(line, "state_mb"),
        from_cache=bool(_number(line, "measured", "maps_from_cache", "hits")),
    )


def _curve(roc: Mapping[str, Any]) -> Curve | None:
    try:
        x, y = (np.asarray(roc.get(name), dtype=np.float64) for name in ("fpr", "tpr"))
    except (TypeError, ValueError, OverflowError):
        return None
    whole = x.ndim == 1 and x.shape == y.shape and len(x) > 1 and np.isfinite(x).all() and np.isfinite(y).all()
    return (x, y) if whole and (np.diff(x) >= 0).all() else None


def _memory(history: Any) -> tuple[tuple[float, float], ...]:
    found = []
    for record in history if isinstance(history, list) else ():
        items, used = (_number(_mapping(record), "facts", name) for name in ("items", "effective_items"))
        if items is not None and used is not None and items > 0 and used > 0:
            found.append((items, used))
    return tuple(found)


def _within(splits: Any) -> tuple[bool, ...]:
    each = [split for split in splits if isinstance(split, Mapping)] if isinstance(splits, list) else []
    return tuple(bool(split.get("within_quantile")) for split in each)


def _made_by(made: Any) -> dict[str, str]:
    facts = made if isinstance(made, Mapping) else {"version": made} if isinstance(made, str) else {}
    return {clean(str(name)): clean(str(value)) for name, value in facts.items() if value is not None}


def _areas(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: finite(value) for name, value in values.items()}
    return {name: number for name, number in numbers.items() if number is not None and 0 <= number <= 1}


def _hash(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _at(value: Any, path: tuple[str, ...]) -> Any:
    """Return a nested value of an object; None where the path does not exist."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _number(line: Mapping[str, Any], *path: str) -> float | None:
    return finite(_at(line, path))


def _cleaned(value: Any) -> Any:
    """Return a JSON value with printable text."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(entry) for entry in value]
    if isinstance(value, Mapping):
        return {clean(name): _cleaned(entry) for name, entry in value.items()}
    return value
