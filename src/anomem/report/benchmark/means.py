"""Means of run lines: over draws and seeds, then over the categories of a set, of objects and textures apart."""

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
    """Mean figures of one method at one setting on one set.

    Parameters
    ----------
    protocol, set, method : str
        ``method`` is the label.
    group : str
        "all" categories, or "object" or "texture" ones.
    setting : dict
        Facts of the task, the sweep's value among them.
    categories : tuple of str
    n : int
        Draws and seeds that the spread is over.
    values : dict
        Metric to (mean, standard deviation over draws and seeds of the mean over categories).
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
    """Average run lines.

    Parameters
    ----------
    runs : iterable of Run
        Those of another seed or draw are repetitions; those of other hyperparameters, limits or settings are kept
        apart.

    Returns
    -------
    list of Mean
        In the order of first appearance. Sets whose categories are objects and textures have a row for each, then one
        for all.
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
    # What a cross-type task sets apart is its category: a row per type, and their mean.
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
