"""The promised false-alarm rate against what was found, and what methods cost: tables of their own."""

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
    "exceeds the promised one by two errors at most, and no more than 5 % of splits, and two errors, lie beyond the "
    "95 % quantile."
)
"""What the column of verdicts means."""

_BEYOND = 0.05  # share of splits that a 95 % quantile leaves beyond itself


@dataclass(frozen=True)
class FalseAlarms:
    r"""How one promise of one method on one set was kept, over all fits and splits.

    Parameters
    ----------
    method, where, trial : str
    alpha : float
        Promised.
    expected : float or None
        What a fit's calibration set can promise, k / (n + 1); None where alpha is not attainable.
    rate, detection : float or None
        Found: share of fresh normals rejected, share of anomalies found.
    error : float or None
        Standard error of the rate, clustered by fit: splits of one fit share its model. It is what a bootstrap that
        draws fits, each with all its splits, comes to, enlarged by :math:`\sqrt{n / (n - 1)}`, which a bootstrap of
        n fits lacks. None of one fit.
    n_fits, n_splits : int
    n_within : int
        Splits whose false alarms lie within the 95 % quantile of the promise.
    beyond_error : float or None
        Standard error, clustered alike, of the share of splits that do not.
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
        """Whether the rate found exceeds the promised one by two errors at most; None where there is no error."""
        if self.rate is None or self.error is None:
            return None
        return self.rate - self.alpha <= 2 * self.error

    @property
    def quantile_holds(self) -> bool | None:
        """Whether at most 5 % of splits, and two errors, lie beyond the 95 % quantile of the promise."""
        if not self.n_splits or self.beyond_error is None:
            return None
        return 1 - self.n_within / self.n_splits - _BEYOND <= 2 * self.beyond_error

    @property
    def verdict(self) -> str:
        """Whether the promise was kept, in a few words."""
        if None in (self.rate_holds, self.quantile_holds):
            return "not judged"
        broken = [
            words
            for holds, words in ((self.rate_holds, "rate too high"), (self.quantile_holds, "too many splits beyond"))
            if not holds
        ]
        return ", ".join(broken) or "kept"


def promises(runs: Iterable[Run], sets: Sequence[MeasuredSet] = ()) -> list[FalseAlarms]:
    """Gather the lines of the promise, smaller alpha first; sets that are not the official ones are marked."""
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
