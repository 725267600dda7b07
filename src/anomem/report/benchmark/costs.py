"""Cost of methods per set: medians of fit seconds, images per second, memory and file size."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from anomem.report.benchmark.captions import set_title, trial_words
from anomem.report.benchmark.runs import Run
from anomem.report.benchmark.sets import MARK, MeasuredSet, marked


@dataclass(frozen=True)
class Cost:
    """Cost of a method on one set: medians over fits; None where not measured."""

    method: str
    where: str
    trial: str
    fit_seconds: float | None
    images_per_second: float | None
    peak_mb: float | None
    state_mb: float | None
    n: int


def costs(runs: Iterable[Run], sets: Sequence[MeasuredSet] = ()) -> list[Cost]:
    """Return the cost of fits without labels, without seconds of fits whose maps came from a cache."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        plain = run.protocol == "localisation" or (run.protocol == "one-vs-rest" and not run.facts.get("gamma"))
        if plain and run.sweep is None:
            groups.setdefault((run.family, run.column[0], run.label, run.parameters, run.trial), []).append(run)
    found = []
    for part in groups.values():
        timed = [run.cost for run in part if not run.cost.from_cache]
        cost = Cost(
            method=part[0].label,
            where=_set(part[0]) + (MARK if marked(part[0].column[0], sets) else ""),
            trial=trial_words(part[0]),
            fit_seconds=_median([cost.fit_seconds for cost in timed]),
            images_per_second=_median([cost.images_per_second for cost in timed]),
            peak_mb=_median([cost.peak_mb for cost in timed]),
            state_mb=_median([run.cost.state_mb for run in part]),
            n=len(part),
        )
        if any(v is not None for v in (cost.fit_seconds, cost.images_per_second, cost.peak_mb, cost.state_mb)):
            found.append(cost)
    return found


def _set(run: Run) -> str:
    """Return the name of the fitted set; all classes of a set of classes share it."""
    data, category, _ = run.column
    title = set_title(run.family)
    return f"{title} {category}" if data.endswith(f"/{category}") else title


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
