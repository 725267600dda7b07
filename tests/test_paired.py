"""Paired comparisons against slow loops and analytic results."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy.stats import t

from anomem.metrics.paired import MANY_CATEGORIES, Pair, compare


def pairs(differences: dict[str, list[float]], error: float | None = None, *, by: str = "seed") -> list[Pair]:
    """Pairs of given differences to 0.5; the places in each list are seeds, or draws of seed 0."""
    return [
        Pair(name, (i, None) if by == "seed" else (0, i), 0.5 + value, 0.5, error)
        for name, values in differences.items()
        for i, value in enumerate(values)
    ]


def half(found: object) -> float:
    return (found.high - found.low) / 2


def test_means_and_counts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    given = []
    for name, count in (("a", 1), ("b", 4), ("c", 2)):
        for seed in range(count):
            a, b = rng.choice([0.5, 0.6, 0.75, 0.9], size=2)
            given.append(Pair(name, (seed, None), float(a), float(b)))
    means = {"a": [], "b": []}
    for name in "abc":
        own = [p for p in given if p.category == name]
        means["a"].append(sum(p.a for p in own) / len(own))
        means["b"].append(sum(p.b for p in own) / len(own))
    mean_a, mean_b = (sum(values) / 3 for values in means.values())
    found = compare(given)
    assert found.difference == pytest.approx(mean_a - mean_b)
    assert found.error_ratio == pytest.approx((1 - mean_a) / (1 - mean_b))
    counts = [sum(p.a > p.b for p in given), sum(p.a == p.b for p in given), sum(p.a < p.b for p in given)]
    assert [found.wins, found.ties, found.losses] == counts
    assert (found.n_units, found.n_categories) == (7, 3)
    assert min(counts) > 0


def test_less_may_be_better() -> None:
    found = compare(pairs({"a": [0.1, 0.2]}), higher=False)
    assert (found.wins, found.losses) == (0, 2)
    assert found.error_ratio is None
    assert compare([Pair("a", (0, None), 0.9, 1.0)]).error_ratio is None


def test_one_unit_has_the_error_of_its_images_and_no_other() -> None:
    found = compare(pairs({"a": [0.03]}, error=0.01))
    assert found.difference == pytest.approx(0.03)
    assert (found.low, found.high) == pytest.approx((0.03 - 1.96 * 0.01, 0.03 + 1.96 * 0.01), abs=2e-4)
    assert found.basis == ("images",)
    assert found.verdict == 1


def test_nothing_is_claimed_where_no_error_is_known() -> None:
    found = compare(pairs({"a": [0.2], "b": [0.1]}))
    assert (found.low, found.high, found.basis, found.verdict) == (None, None, (), 0)


@pytest.mark.parametrize("by", ["seed", "draw"])
def test_repetitions_have_the_standard_error_of_a_mean(by: str) -> None:
    values = np.random.default_rng(1).normal(0.02, 0.01, 60).tolist()
    found = compare(pairs({"a": values}, by=by), draws=20_000)
    assert half(found) == pytest.approx(1.96 * statistics.stdev(values) / math.sqrt(60), rel=0.03)
    assert found.basis == (f"{by}s",)


def test_two_repetitions_are_not_taken_for_more_certain_than_they_are() -> None:
    # A bootstrap of two values knows three means; unscaled, the outermost are the values themselves.
    found = compare(pairs({"a": [0.0, 0.02]}))
    assert (found.low, found.high) == pytest.approx((0.01 - 0.01 * math.sqrt(2), 0.01 + 0.01 * math.sqrt(2)))


def test_errors_of_images_and_repetitions_add_in_quadrature_and_more_draws_do_not_shrink_the_first() -> None:
    values = np.random.default_rng(2).normal(0.02, 0.05, 100).tolist()
    found = compare(pairs({"a": values}, error=0.004, by="draw"), draws=20_000)
    expected = 1.96 * math.hypot(statistics.stdev(values) / 10, 0.004)
    assert half(found) == pytest.approx(expected, rel=0.03)
    equal = compare(pairs({"a": [0.02] * 50}, error=0.004, by="draw"))
    assert half(equal) == pytest.approx(1.96 * 0.004, rel=0.01)
    assert equal.basis == ("draws", "images")


def test_images_of_categories_are_independent() -> None:
    found = compare(pairs({name: [0.02] for name in "abcd"}, error=0.01))
    assert half(found) == pytest.approx(1.96 * 0.01 / 2, rel=0.01)


def test_an_error_that_is_missing_once_is_missing() -> None:
    given = [Pair("a", (0, None), 0.6, 0.5, 0.01), Pair("a", (1, None), 0.7, 0.5, None)]
    assert compare(given).basis == ("seeds",)


def test_draws_of_one_fit_are_one_cluster() -> None:
    """Of several fits, each with many draws, the fits are resampled: draws of a fit share its luck."""
    luck = dict(enumerate(np.random.default_rng(3).normal(0, 0.02, 30)))
    given = [Pair("a", (seed, draw), 0.5 + value, 0.5) for seed, value in luck.items() for draw in range(10)]
    found = compare(given, draws=20_000)
    assert found.basis == ("seeds",)
    assert half(found) == pytest.approx(1.96 * statistics.stdev(luck.values()) / math.sqrt(30), rel=0.04)


def test_many_categories_are_resampled_whole() -> None:
    values = np.random.default_rng(4).normal(0.02, 0.03, 40)
    single = {str(i): [float(v)] for i, v in enumerate(values)}
    found = compare(pairs(single, error=0.5), draws=20_000)
    assert found.basis == ("categories",)
    assert half(found) == pytest.approx(t.ppf(0.975, 39) * values.std(ddof=1) / math.sqrt(40), rel=0.05)
    repeated = compare(pairs({name: own * 25 for name, own in single.items()}), draws=20_000)
    assert half(repeated) == pytest.approx(half(found), rel=0.05)


def test_where_both_are_equally_good_little_more_than_five_of_a_hundred_say_otherwise() -> None:
    rng = np.random.default_rng(5)
    for count in (MANY_CATEGORIES, 15):
        wrong = [
            compare(pairs({str(i): [float(rng.normal())] for i in range(count)}), draws=400, seed=trial).verdict
            for trial in range(600)
        ]
        assert np.mean(np.abs(wrong)) < 0.08, count


def test_a_comparison_is_repeatable() -> None:
    given = pairs({"a": [0.1, 0.2, 0.4], "b": [0.0, 0.1, 0.3]}, error=0.02)
    assert compare(given) == compare(given)
