"""Promised against measured false-alarm rates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from anomem.report.benchmark.captions import set_title, trial_words
from anomem.report.benchmark.runs import Run
from anomem.report.benchmark.sets import MARK, MeasuredSet, marked

__all__ = ["RULE", "FalseAlarms", "promises"]

RULE = (
    "± is the standard error of the rate, clustered by fit, as splits of one fit share its model. Kept: the rate "
    "exceeds the promised one by at most two errors, and at most 5 % of splits, plus two errors, exceed the 95 % "
    "quantile."
)
"""Caption of the column of verdicts."""

_BEYOND = 0.05  # expected share of splits above the 95 % quantile


@dataclass(frozen=True)
class FalseAlarms:
    r"""Check of one promised rate of one method on one set, over all fits and splits.

    Parameters
    ----------
    method, where, trial : str
    alpha : float
        Promised rate.
    expected : float or None
        Exact rate of a fit's calibration set, k / (n + 1); None where alpha is not attainable.
    rate, detection : float or None
        Measured: share of fresh normals rejected, share of anomalies found.
    error : float or None
        Standard error of the rate, clustered by fit: splits of one fit share its model. It equals
        a bootstrap over fits, each with all its splits, times :math:`\sqrt{n / (n - 1)}`, the correction for n fits.
        None for one fit.
    n_fits, n_splits : int
    n_within : int
        Splits with false alarms within the 95 % quantile.
    beyond_error : float or None
        Standard error, also clustered by fit, of the share of the other splits.
    """

    method: str
    where: str
    trial: str
    alpha: float
    expected: float | None
    rate: float | None
    error: float | None
    detection: float | None
    n_fits: int
    n_splits: int
    n_within: int
    beyond_error: float | None

    @property
    def rate_holds(self) -> bool | None:
        """True where the measured rate exceeds the promised one by at most two errors; None without an error."""
        if self.rate is None or self.error is None:
            return None
        return self.rate - self.alpha <= 2 * self.error

    @property
    def quantile_holds(self) -> bool | None:
        """True where at most 5 % of splits, plus two errors, exceed the 95 % quantile."""
        if not self.n_splits or self.beyond_error is None:
            return None
        return 1 - self.n_within / self.n_splits - _BEYOND <= 2 * self.beyond_error

    @property
    def verdict(self) -> str:
        """Verdict in a few words."""
        if None in (self.rate_holds, self.quantile_holds):
            return "not judged"
        broken = [
            words
            for holds, words in ((self.rate_holds, "rate too high"), (self.quantile_holds, "too many splits above"))
            if not holds
        ]
        return ", ".join(broken) or "kept"


def promises(runs: Iterable[Run], sets: Sequence[MeasuredSet] = ()) -> list[FalseAlarms]:
    """Collect the checks of promised rates, smaller alpha first; unofficial sets are marked."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.protocol == "promise" and run.alpha is not None:
            groups.setdefault((run.column, run.label, run.parameters, run.trial, run.alpha), []).append(run)
    order = {key[:4]: place for place, key in reversed(list(enumerate(groups)))}
    return [
        _kept(part, key[-1], sets)
        for key, part in sorted(groups.items(), key=lambda item: (order[item[0][:4]], item[0][-1]))
    ]


def _kept(runs: Sequence[Run], alpha: float, sets: Sequence[MeasuredSet]) -> FalseAlarms:
    rates = [run.values["false_alarm_rate"] for run in runs if "false_alarm_rate" in run.values]
    found = [run.values["detection_rate"] for run in runs if "detection_rate" in run.values]
    expected = [run.expected for run in runs if run.expected is not None]
    within = [run.within for run in runs if run.within]
    return FalseAlarms(
        method=runs[0].label,
        where=_where(runs[0]) + (MARK if marked(runs[0].column[0], sets) else ""),
        trial=trial_words(runs[0]),
        alpha=alpha,
        expected=_mean(expected),
        rate=_mean(rates),
        error=_error(rates),
        detection=_mean(found),
        n_fits=len(rates),
        n_splits=sum(map(len, within)),
        n_within=sum(map(sum, within)),
        beyond_error=_error([statistics.fmean(fit) for fit in within]),
    )


def _where(run: Run) -> str:
    _, category, _ = run.column
    title = set_title(run.family)
    return title if category == run.family.partition(":")[0] else f"{title} {category}"


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _error(of_fits: Sequence[float]) -> float | None:
    return statistics.stdev(of_fits) / math.sqrt(len(of_fits)) if len(of_fits) > 1 else None
