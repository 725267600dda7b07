"""Test normals rejected at the calibrated alpha, without re-splitting."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from anomem.report.benchmark.captions import set_title
from anomem.report.benchmark.runs import Run
from anomem.report.benchmark.sets import MARK, MeasuredSet, marked

__all__ = ["Rejected", "rejected_normals"]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rejected:
    """Decisions of one method on the test images of one set, over all fits without labels.

    Parameters
    ----------
    method, where : str
    alpha : float
        Calibrated alpha; where fits differ, their mean.
    n_false, n_normal : int
        Normal test images rejected, and all of them, summed over fits.
    detection : float
        Share of the anomalies found, mean over fits.
    attainable : float or None
        Share that the lowest threshold would find at which at most alpha of these normals are rejected, mean over fits:
        chosen on the test images, so that no calibration reaches it. None where a line has no ROC curve.
    n_fits : int
    """

    method: str
    where: str
    alpha: float
    n_false: int
    n_normal: int
    detection: float
    attainable: float | None
    n_fits: int

    @property
    def rate(self) -> float:
        """Share of normal test images rejected."""
        return self.n_false / self.n_normal


def rejected_normals(runs: Iterable[Run], label: str, sets: Sequence[MeasuredSet] = ()) -> list[Rejected]:
    """Count decisions of one method per set, in order; sweeps and trials are left out."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        plain = run.protocol == "localisation" or (run.protocol == "one-vs-rest" and not run.facts.get("gamma"))
        if plain and run.label == label and run.sweep is None and run.trial == (None, None) and _decided(run):
            groups.setdefault((run.family, run.column[0], run.parameters), []).append(run)
    return [_counted(part, sets) for part in groups.values()]


def _decided(run: Run) -> bool:
    found = run.decision
    return None not in (found.alpha, found.n_false, found.detection_rate) and bool(run.n_normal)


def _counted(runs: Sequence[Run], sets: Sequence[MeasuredSet]) -> Rejected:
    data, category, _ = runs[0].column
    title = set_title(runs[0].family)
    where = f"{title} {category}" if data.endswith(f"/{category}") else title
    return Rejected(
        method=runs[0].label,
        where=where + (MARK if marked(data, sets) else ""),
        alpha=statistics.fmean(run.decision.alpha or 0.0 for run in runs),
        n_false=round(sum(run.decision.n_false or 0.0 for run in runs)),
        n_normal=round(sum(run.n_normal or 0.0 for run in runs)),
        detection=statistics.fmean(run.decision.detection_rate or 0.0 for run in runs),
        attainable=_mean([_attainable(run) for run in runs]),
        n_fits=len(runs),
    )


def _attainable(run: Run) -> float | None:
    if run.roc is None or run.decision.alpha is None:
        return None
    rates, found = run.roc
    allowed = found[rates <= run.decision.alpha + _ROUNDING]
    return float(allowed.max()) if len(allowed) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None
