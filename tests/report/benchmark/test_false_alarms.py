"""Promised false-alarm rate in a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from anomem.report.benchmark.false_alarms import FalseAlarms
from anomem.report.benchmark.report import gather
from tests.report.benchmark.lines import line, on, write

ALPHA = 0.05


def kept(folder: Path, rates: Sequence[Sequence[float]], within: Sequence[Sequence[bool]]) -> FalseAlarms:
    """What is made of fits with these splits."""
    lines = []
    for seed, (fit, held) in enumerate(zip(rates, within, strict=True)):
        each = [{"rate": rate, "within_quantile": inside} for rate, inside in zip(fit, held, strict=True)]
        splits = {"n": 99, "expected": 0.05, "rate": float(np.mean(fit)), "detection": 0.8, "each": each}
        task = {"alpha": ALPHA, "redraws": len(each)}
        lines.append(line(None, protocol="promise", seed=seed, task=task, splits=splits, **on("magnetic_tile")))
    [found] = gather([write(folder / "runs.jsonl", lines)]).promises
    return found


def spread(centre: float, fits: int = 5, splits: int = 10) -> list[list[float]]:
    """Rates that differ more between fits than within one."""
    rng = np.random.default_rng(0)
    centred = rng.normal(0, 0.01, fits)
    of_fits = centre + centred - centred.mean()
    noise = rng.normal(0, 0.001, (fits, splits))
    rates: list[list[float]] = (of_fits[:, None] + noise - noise.mean(axis=1, keepdims=True)).tolist()
    return rates


def all_within(fits: int = 5, splits: int = 10) -> list[list[bool]]:
    return [[True] * splits for _ in range(fits)]


def test_the_error_is_that_of_a_bootstrap_that_draws_whole_fits(tmp_path: Path) -> None:
    rates = np.asarray(spread(0.05))
    found = kept(tmp_path, rates.tolist(), all_within())
    rng = np.random.default_rng(1)
    drawn = [rates[rng.integers(5, size=5)].mean() for _ in range(40_000)]
    assert found.error == pytest.approx(np.std(drawn) * np.sqrt(5 / 4), rel=0.02)
    alone = rates.std() / np.sqrt(rates.size)
    assert found.error > 2 * alone, "fifty splits are no fifty independent ones"


@pytest.mark.parametrize(("errors", "verdict"), [(-3.0, "kept"), (1.9, "kept"), (2.1, "rate too high")])
def test_a_rate_may_exceed_the_promise_by_two_errors(tmp_path: Path, errors: float, verdict: str) -> None:
    error = kept(tmp_path, spread(ALPHA), all_within()).error
    found = kept(tmp_path, spread(ALPHA + errors * error), all_within())
    assert (found.verdict, found.error) == (verdict, pytest.approx(error))


@pytest.mark.parametrize(
    ("beyond", "verdict"),
    [([0, 0, 0, 0, 0], "kept"), ([3, 0, 0, 0, 0], "kept"), ([2, 3, 2, 3, 2], "too many splits above")],
)
def test_one_split_in_twenty_may_lie_beyond_the_quantile(tmp_path: Path, beyond: list[int], verdict: str) -> None:
    within = [[place >= n for place in range(10)] for n in beyond]
    found = kept(tmp_path, spread(0.04), within)
    assert (found.n_within, found.n_splits) == (50 - sum(beyond), 50)
    assert found.verdict == verdict


def test_one_fit_is_not_judged(tmp_path: Path) -> None:
    found = kept(tmp_path, spread(0.5, fits=1), all_within(fits=1))
    assert (found.error, found.verdict) == (None, "not judged")
