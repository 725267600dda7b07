"""Shift of a batch: exact reference, ties, error without a shift, power with one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from anomem.runtime.blend import blended
from anomem.runtime.calibration import calibrate
from anomem.runtime.shift import LEVEL, anderson_darling, find_shift


def statistic(one: list[float], other: list[float]) -> float:
    """The two-sample statistic by its sum, up to a constant."""
    pooled, n = sorted([*one, *other]), len(one)
    total, size = 0.0, len(pooled)
    for value in sorted(set(pooled))[:-1]:
        below, own = sum(v <= value for v in pooled), sum(v <= value for v in one)
        total += pooled.count(value) * (own - n * below / size) ** 2 / (below * (size - below))
    return total


@pytest.mark.parametrize(
    ("one", "other"),
    [([1, 2, 3, 4], [5, 6, 7]), ([1, 5, 3], [2, 4, 6, 7]), ([1, 1, 2, 2], [2, 2, 3, 3]), ([1, 1], [1, 2, 2, 2, 1])],
)
def test_the_p_value_is_that_of_all_relabellings(one: list[float], other: list[float]) -> None:
    pooled, n = [*one, *other], len(one)
    found = statistic(one, other)
    chosen = list(combinations(range(len(pooled)), n))
    as_large = sum(
        statistic([pooled[i] for i in c], [v for i, v in enumerate(pooled) if i not in c]) >= found * (1 - 1e-9)
        for c in chosen
    )
    drawn = anderson_darling(one, other, draws=9999)
    assert drawn == pytest.approx(as_large / len(chosen), abs=4 * 0.5 / 100)


def test_equal_scores_are_no_shift() -> None:
    assert anderson_darling([1.0] * 5, [1.0] * 9) == 1.0


@pytest.mark.parametrize(("n", "ties"), [(20, False), (20, True), (50, False), (200, False)])
def test_the_error_without_a_shift_is_the_level(n: int, ties: bool) -> None:
    rng, p_values = np.random.default_rng([n, ties]), []
    for _ in range(80):
        scores = rng.normal(size=n + 30)
        scores = np.round(scores) if ties else scores
        found = find_shift(calibrate(scores[:n], 0.05), scores[n:])
        p_values.append(1.0 if found is None else found.p_value)
    for level in (0.05, 0.2):
        assert np.mean(np.asarray(p_values) <= level) <= level + 3 * np.sqrt(level * (1 - level) / 80)


@pytest.mark.parametrize(("moved", "higher"), [(1.2, True), (-1.2, False)])
def test_a_shift_is_found_in_either_direction(moved: float, higher: bool) -> None:
    rng = np.random.default_rng(0)
    calibration = calibrate(rng.normal(size=99), 0.05)
    found = find_shift(calibration, rng.normal(moved, 1, 60))
    assert (found.shifted, found.higher) == (True, higher)
    assert found.p_value <= LEVEL
    assert found.n_accepted <= 60
    assert found.n_calibration == 99 - 5


def test_rejected_images_are_left_out() -> None:
    rng = np.random.default_rng(1)
    calibration = calibrate(rng.normal(size=199), 0.05)
    good = rng.normal(size=60)
    with_defects = np.concatenate([good, rng.normal(9, 1, 200)])
    assert find_shift(calibration, with_defects) == find_shift(calibration, good)
    assert find_shift(calibration, [50.0, 60.0]) is None


def test_cross_fitted_scores_shift_upwards_only() -> None:
    rng = np.random.default_rng(2)
    calibration = calibrate(rng.normal(size=99), 0.05, kind="cross", folds=5)
    lower, higher = (find_shift(calibration, rng.normal(moved, 1, 60)) for moved in (-1.5, 1.5))
    assert (lower.p_value <= LEVEL, lower.shifted, higher.shifted) == (True, False, True)


def test_each_stratum_is_compared_with_its_own() -> None:
    rng = np.random.default_rng(3)
    strata = ["a"] * 60 + ["b"] * 60
    scores = np.concatenate([rng.normal(0, 1, 60), rng.normal(50, 1, 60)])
    calibration = calibrate(scores, 0.05, strata=strata)
    new = np.concatenate([rng.normal(0, 1, 60), rng.normal(48.5, 1, 60)])
    found = find_shift(calibration, new, strata)
    assert (found.shifted, found.stratum, found.higher) == (True, "b", False)
    alike = find_shift(calibration, np.concatenate([rng.normal(0, 1, 60), rng.normal(50, 1, 60)]), strata)
    assert not alike.shifted


def test_images_of_a_group_count_once() -> None:
    rng = np.random.default_rng(4)
    calibration = calibrate(rng.normal(size=99), 0.05)
    burst = np.full(300, -2.0) + rng.normal(0, 0.01, 300)
    single, grouped = find_shift(calibration, burst), find_shift(calibration, burst, groups=["one part"] * 300)
    assert (single.shifted, grouped.shifted, grouped.n_accepted) == (True, False, 1)
    parts = calibrate(np.repeat(rng.normal(size=40), 5), 0.05, groups=[i // 5 for i in range(200)])
    found = find_shift(parts, rng.normal(size=30))
    assert found.n_calibration == 38


def test_moved_scores_are_not_compared() -> None:
    rng = np.random.default_rng(5)
    calibration = blended(calibrate(rng.normal(size=99), 0.05), rng.normal(2, 1, 20), 0.05)
    assert find_shift(calibration, rng.normal(2, 1, 50)) is None
