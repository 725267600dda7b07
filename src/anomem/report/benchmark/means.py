"""Means of run lines: over draws and seeds, then over categories; objects and textures separately, too."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from anomem.benchmark.unit import canonical
from anomem.report.benchmark.figures import METRICS
from anomem.report.benchmark.runs import Run

__all__ = ["Mean", "means"]

ALL = "all"


@dataclass(frozen=True)
class Mean:
    """Mean figures of one method, setting and set.

    Parameters
    ----------
    protocol, set, method : str
        ``method`` is the label.
    group : str
        "all" categories, or "object" or "texture" ones.
    setting : dict
        Facts of the task, including the sweep's value.
    categories : tuple of str
    n : int
        Number of draws and seeds in the spread.
    values : dict
        Metric -> (mean, standard deviation over draws and seeds of the mean over categories).
    """

    protocol: str
    set: str
    method: str
    group: str
    setting: dict[str, Any]
    categories: tuple[str, ...]
    n: int
    values: dict[str, tuple[float, float]]


def means(runs: Iterable[Run]) -> list[Mean]:
    """Average run lines over repetitions and categories.

    Parameters
    ----------
    runs : iterable of Run
        Seeds and draws are repetitions; other hyperparameters, limits or settings are averaged separately.

    Returns
    -------
    list of Mean
        In order of first appearance. Sets of objects and textures have an entry for each, then one for all.
    """
    tables: dict[str, list[Run]] = {}
    for run in runs:
        tables.setdefault(_table_key(run), []).append(run)
    return [
        _mean([run for run in part if group in (ALL, run.group)], group)
        for part in tables.values()
        for group in _groups(part)
    ]


def _groups(runs: Sequence[Run]) -> list[str]:
    found = [group for group in ("object", "texture") if any(run.group == group for run in runs)]
    return [*found, ALL] if len(found) > 1 else [ALL]


def _table_key(run: Run) -> str:
    variant = run.column[0].partition("/")[0]
    sweep = run.sweep and (run.sweep.name, run.sweep.parameter, run.sweep.value)
    return canonical([run.protocol, run.set, run.label, run.parameters, sweep, run.trial, variant, _setting(run)])


def _setting(run: Run) -> dict[str, Any]:
    # The held-out type of a cross-type task is its category: an entry per type, and their mean.
    facts = {**run.facts, "against": run.against} if run.against else dict(run.facts)
    return facts if run.sweep is None else {**facts, run.sweep.parameter: run.sweep.value}


def _mean(runs: Sequence[Run], group: str) -> Mean:
    first = runs[0]
    categories = tuple(dict.fromkeys(" ".join(filter(None, (run.column[1], run.apart))) for run in runs))
    values: dict[str, tuple[float, float]] = {}
    repeats: set[tuple[int, int | None]] = set()
    for metric in METRICS:
        by_repeat: dict[tuple[int, int | None], list[float]] = {}
        for run in runs:
            if metric in run.values:
                by_repeat.setdefault(run.repeat, []).append(run.values[metric])
        if by_repeat:
            repeats |= by_repeat.keys()
            each = [statistics.fmean(part) for part in by_repeat.values()]
            values[metric] = (statistics.fmean(each), statistics.stdev(each) if len(each) > 1 else 0.0)
    return Mean(first.protocol, first.set, first.label, group, _setting(first), categories, len(repeats), values)
