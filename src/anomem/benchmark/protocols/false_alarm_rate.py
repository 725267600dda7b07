"""Promised false-alarm rate, tested on fresh normals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from anomem.benchmark.fits import Fit
from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings
from anomem.benchmark.protocols.base import CALIBRATIONS, Opener, Protocol, fitted_with, own_normals
from anomem.benchmark.unit import Task, Unit
from anomem.benchmark.workspace import Workspace
from anomem.data.labelled_images import Images
from anomem.params import Each, Range, param, parameters
from anomem.runtime.calibration import Calibration, calibrate, rejected_ranks
from anomem.types import ANOMALOUS, NORMAL, FloatArray

__all__ = ["Promise", "false_alarm_quantile", "redraw"]


def false_alarm_quantile(m: int, n: int, k: int, level: float = 0.95) -> int:
    """Return a quantile of the false alarms among m fresh normals, over calibration sets of n.

    The rate of one calibration set follows Beta(k, n + 1 - k) where scores do not tie, so the count among m further
    normals is beta-binomial.

    Examples
    --------
    >>> false_alarm_quantile(m=100, n=99, k=5)
    11
    """
    from scipy.stats import betabinom

    return int(betabinom.ppf(level, m, k, n + 1 - k))


@parameters
class Promise(Protocol):
    """Check of the promised false-alarm rate: calibration and fresh normals of each fit are re-split repeatedly.

    The pool of a fit is its calibration normals and the test normals, none of which it was trained or tuned on. Each
    split calibrates on as many as the fit did; the others are fresh.

    Parameters
    ----------
    alphas : tuple of float, default (0.01, 0.05, 0.1)
        Promised false-alarm rates.
    redraws : int, default 10
        Splits of the pool.
    calibration : str, default "split"
        Calibration of the fits. A cross-fitted model has learnt from its whole pool: its own calibration is tested,
        once, on the test normals.
    """

    name: ClassVar[str] = "promise"
    seeds: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4)

    alphas: tuple[float, ...] = param(
        (0.01, 0.05, 0.10), Each(Range(0.0, 0.5, low_open=True)), doc="Promised false-alarm rates."
    )
    redraws: int = param(10, Range(1, 10_000, integer=True), doc="Splits of each fit's pool.")
    calibration: str = param("split", CALIBRATIONS, doc="Calibration of the fits.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield a task per alpha."""
        own_normals(data, self.name)
        options = self.options()
        for alpha in options["alphas"]:
            facts = {"alpha": alpha, "redraws": options["redraws"]}
            yield Task(self.name, data.name, data.category, fitted_with(options["calibration"]), facts)

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit once, re-split the pool, count false alarms."""
        facts, data = unit.task.facts, work.open(unit.task.data, unit.limit)
        fit = work.one_class(unit, data.train)
        if fit.detector.calibration_.kind != "split":
            return self._on_test_normals(unit, fit, data, work)
        pool = work.see(fit, pool_of(fit, data))
        seen = work.see(fit, data.test)
        anomalous = seen.scores[data.test.positions(ANOMALOUS)]
        n = fit.detector.calibration_.n
        figures = redraw(pool.scores, anomalous, n, facts["alpha"], facts["redraws"], unit.seed)
        return Findings(fit, {"splits": figures}, pool, np.arange(len(pool.scores)))

    def _on_test_normals(self, unit: Unit, fit: Fit, data: BenchmarkSet, work: Workspace) -> Findings:
        seen, alpha = work.see(fit, data.test), unit.task.facts["alpha"]
        normal, anomalous = (data.test.positions(label) for label in (NORMAL, ANOMALOUS))
        scores, calibration = seen.scores[normal], fit.detector.calibration_
        figures = fixed(calibration, scores, seen.scores[anomalous], alpha)
        return Findings(fit, {"splits": figures}, seen, normal)


def pool_of(fit: Fit, data: BenchmarkSet) -> Images:
    """Return the normals, without duplicates, that the fit was neither trained nor tuned on."""
    digests = fit.detector.digests_by_role_
    taken = set(digests["learn"] | digests["tune"])
    test = data.test.subset(data.test.positions(NORMAL), "")
    everything = data.train.joined(test, "")
    kept: list[int] = []
    for i in range(len(everything)):
        digest = everything.source.digest(i)
        if digest not in taken:
            taken.add(digest)
            kept.append(i)
    return everything.subset(kept, f"{data.name} pool of normals")


def redraw(pool: FloatArray, anomalous: FloatArray, n: int, alpha: float, redraws: int, seed: int) -> dict[str, Any]:
    """Re-split the pool repeatedly: calibrate on n scores, count the others that are rejected.

    Returns
    -------
    dict
        ``n`` calibration normals, ``fresh`` fresh ones, ``k`` = floor(alpha (n + 1)) rejected ranks, an exact rate of
        ``expected`` = k / (n + 1); ``rate_limit_95`` is the printed 95 % limit of the rate, ``quantile_95`` that of the
        count among the fresh ones. ``each``: per split the false alarms, their rate, the detection rate, and True
        where limit and quantile hold. ``attainable`` is false where k is 0: the pool is not split then.
    """
    k, fresh = rejected_ranks(alpha, n), len(pool) - n
    facts: dict[str, Any] = {"n": n, "fresh": fresh, "k": k, "attainable": k > 0 and fresh > 0}
    if not facts["attainable"]:
        return facts
    rng = np.random.default_rng(seed)
    each = []
    for _ in range(redraws):
        order = rng.permutation(len(pool))
        calibration = calibrate(pool[order[:n]], alpha)
        each.append(_counted(calibration, pool[order[n:]], anomalous))
    return _summed(facts, each, calibration)


def fixed(calibration: Calibration, fresh: FloatArray, anomalous: FloatArray, alpha: float) -> dict[str, Any]:
    """Count the false alarms of one calibration among fresh normals; the result is as of :func:`redraw`."""
    n = calibration.n_groups
    k = rejected_ranks(alpha, n)
    facts: dict[str, Any] = {"n": n, "fresh": len(fresh), "k": k, "attainable": k > 0 and len(fresh) > 0}
    if not facts["attainable"]:
        return facts
    chosen = calibration.with_alpha(alpha)
    return _summed(facts, [_counted(chosen, fresh, anomalous)], chosen)


def _counted(calibration: Calibration, fresh: FloatArray, anomalous: FloatArray) -> dict[str, Any]:
    n_false, n = int(calibration.decide(fresh).sum()), calibration.n_groups
    quantile = false_alarm_quantile(len(fresh), n, rejected_ranks(calibration.alpha, n))
    return {
        "n_false": n_false,
        "rate": n_false / len(fresh),
        "detection": float(calibration.decide(anomalous).mean()),
        "within_quantile": n_false <= quantile,
        "within_limit": n_false / len(fresh) <= calibration.rate_limit_95,
    }


def _summed(facts: dict[str, Any], each: list[dict[str, Any]], calibration: Calibration) -> dict[str, Any]:
    n, k = facts["n"], facts["k"]
    return {
        **facts,
        "expected": k / (n + 1),
        "rate_limit_95": calibration.rate_limit_95,
        "quantile_95": false_alarm_quantile(facts["fresh"], n, k),
        "rate": float(np.mean([split["rate"] for split in each])),
        "detection": float(np.mean([split["detection"] for split in each])),
        "each": each,
    }
