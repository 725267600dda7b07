"""Batch verdicts: Benjamini-Hochberg against a slow reference, and its rate by simulation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomem.errors import CalibrationError
from anomem.runtime.calibration import calibrate
from anomem.runtime.fdr import benjamini_hochberg, judge_batch, largest_stratum, least_rejected


def by_definition(ranks: list[int], n: int, fdr: Fraction) -> list[bool]:
    """Reject the k smallest of p = rank / (n + 1), in exact arithmetic."""
    m = len(ranks)
    p = [Fraction(rank, n + 1) for rank in ranks]
    most = max((k for k in range(1, m + 1) if sorted(p)[k - 1] <= fdr * k / m), default=0)
    return [most > 0 and value <= sorted(p)[most - 1] for value in p]


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n + 1), max_size=40))),
    st.sampled_from(["0.05", "0.1", "0.2", "0.29", "0.3", "0.7"]),
)
def test_rejections_are_those_of_exact_arithmetic(drawn: tuple[int, list[int]], fdr: str) -> None:
    n, ranks = drawn
    p_values = [rank / (n + 1) for rank in ranks]
    assert benjamini_hochberg(p_values, float(fdr)).tolist() == by_definition(ranks, n, Fraction(fdr))


def test_missing_p_values_are_neither_counted_nor_rejected() -> None:
    p_values = [0.01, np.nan, 0.02, 0.9]
    assert benjamini_hochberg(p_values, 0.05).tolist() == [True, False, True, False]
    assert benjamini_hochberg([0.01, 1, 0.02, 0.9], 0.035).tolist() == [False] * 4
    assert benjamini_hochberg([], 0.1).tolist() == []


@pytest.mark.parametrize(("n", "m", "fdr"), [(99, 50, 0.1), (19, 10, 0.05), (9, 50, 0.05), (199, 1000, 0.2)])
def test_fewer_than_the_least_are_never_rejected(n: int, m: int, fdr: float) -> None:
    least = least_rejected(n, m, fdr)
    for k in range(min(least + 2, m) + 1):
        rejected = benjamini_hochberg([1 / (n + 1)] * k + [1.0] * (m - k), fdr).sum()
        assert rejected == (k if k >= least else 0)


def test_facts_of_a_batch() -> None:
    rejected, batch = judge_batch([0.01, 0.01, 0.5, np.nan], 99, 0.1)
    assert rejected.tolist() == [True, True, False, False]
    assert (batch.n, batch.n_rejected, batch.least_rejected) == (3, 2, 1)
    assert largest_stratum(calibrate(range(9), 0.5, strata=["a"] * 3 + ["b"] * 6)) == 6


@pytest.mark.parametrize("fdr", [0, 1, -0.1, float("nan"), "much"])
def test_a_rate_that_is_none(fdr: float) -> None:
    with pytest.raises(CalibrationError, match="fdr must be above 0 and below 1"):
        benjamini_hochberg([0.5], fdr)


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize(("m", "defects"), [(10, 3), (100, 20)])
def test_the_share_of_normals_among_the_rejected_is_bounded(n: int, m: int, defects: int) -> None:
    rng, fdr, repeats = np.random.default_rng([n, m]), 0.2, 1000
    shares = []
    for _ in range(repeats):
        calibration = calibrate(rng.normal(size=n), 0.5)
        scores = np.concatenate([rng.normal(size=m - defects), rng.normal(3.0, 1.0, defects)])
        rejected = benjamini_hochberg(calibration.p_value(scores), fdr)
        shares.append(rejected[: m - defects].sum() / max(rejected.sum(), 1))
    assert np.mean(shares) <= fdr * (1 - defects / m) + 2 * np.std(shares) / np.sqrt(repeats)
    assert np.mean(shares) > 0  # the bound is put to the test


def test_the_bound_holds_for_p_values_of_two_strata() -> None:
    rng, fdr, shares = np.random.default_rng(7), 0.2, []
    for _ in range(600):
        strata = ["a"] * 30 + ["b"] * 60
        calibration = calibrate(np.concatenate([rng.normal(0, 1, 30), rng.normal(4, 2, 60)]), 0.5, strata=strata)
        scores = np.concatenate([rng.normal(0, 1, 30), rng.normal(4, 2, 30), rng.normal(3.5, 1, 15)])
        p_values = calibration.p_value(scores, ["a"] * 30 + ["b"] * 30 + ["a"] * 15)
        rejected = benjamini_hochberg(p_values, fdr)
        shares.append(rejected[:60].sum() / max(rejected.sum(), 1))
    assert 0.05 < np.mean(shares) <= fdr * 60 / 75 + 2 * np.std(shares) / np.sqrt(600)
