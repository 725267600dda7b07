"""p-values, decisions and the promised rate, against scipy and by simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomem.errors import AnomemWarning, CalibrationError, InputError
from anomem.runtime.calibration import Calibration, beta_quantile, calibrate, check_alpha, rejected_ranks

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Few values, so that ties are the rule.
tied = st.sampled_from([-1.0, 0.0, 0.5, 0.5000000596046448, 1.0])


@settings(max_examples=300, deadline=None)
@given(
    calibration=st.lists(floats | tied, min_size=1, max_size=40),
    scores=st.lists(st.floats(allow_nan=False) | tied, min_size=1, max_size=20),
    rank=st.floats(0, 1),
)
def test_decisions_p_values_and_threshold_say_the_same(
    calibration: list[float], scores: list[float], rank: float
) -> None:
    n = len(calibration)
    alpha = min(max(rank, 1 / (n + 1)), math.nextafter(1, 0))
    calibrated = calibrate(calibration, alpha)
    tested = np.array([*scores, *calibration, calibrated.threshold])
    with np.errstate(over="ignore"):
        beside = [np.nextafter(tested, np.inf), np.nextafter(tested, -np.inf)]
    tested = np.concatenate([tested, *beside])
    p_values = calibrated.p_value(tested)
    by_hand = [(1 + sum(c >= s for c in np.float32(calibration))) / (n + 1) for s in tested]
    assert p_values.tolist() == by_hand
    decided = calibrated.decide(tested)
    np.testing.assert_array_equal(decided, p_values <= alpha)
    np.testing.assert_array_equal(decided, tested > calibrated.threshold)


def test_the_threshold_is_the_largest_accepted_score() -> None:
    calibrated = calibrate(np.arange(100.0), 0.05)
    # 5 of the 101 p-values j / 101 are at most 0.05, so that the 5th largest score is accepted.
    assert calibrated.threshold == 95
    assert not calibrated.decide(95.0)
    assert calibrated.decide(np.nextafter(np.float32(95), np.float32(96)))


def test_ties_at_the_threshold_are_all_accepted() -> None:
    calibrated = calibrate([0.0] * 5 + [1.0] * 14, 0.1)
    assert calibrated.threshold == 1
    assert not calibrated.decide([1.0, 0.0]).any()
    assert calibrated.p_value(1.0) == 15 / 20


@pytest.mark.parametrize("n", [19, 24, 49, 99, 199, 299, 499, 999, 1999])
def test_round_alphas_lose_no_rank_to_floating_point(n: int) -> None:
    for k in range(1, n + 1):
        exact = Fraction(k, n + 1)
        text = f"{k / (n + 1):.15g}"  # as somebody types it: 0.05, 0.29, 0.07
        if Fraction(text) != exact:
            continue
        calibrated = calibrate(np.arange(n), float(text))
        assert calibrated.threshold == n - k, text
        assert calibrated.p_value(calibrated.threshold + 0.5) == float(text)
        assert calibrated.decide(calibrated.threshold + 0.5)


def test_the_plain_product_would_have_lost_one() -> None:
    assert math.floor(0.29 * 100) == 28
    assert calibrate(np.arange(99), 0.29).threshold == 99 - 29


@pytest.mark.parametrize("n", [0, 1, 12, 98, 99, 152, 999, 1000])
def test_rejected_ranks_count_the_p_values_that_are_at_most_alpha(n: int) -> None:
    typed = [float(f"{j / 1000:.3f}") for j in range(1, 1000)]
    just_beside = [edge for j in range(1, min(n, 200) + 1) for edge in _around(j / (n + 1))]
    p_values = np.arange(1, n + 1) / (n + 1)
    for alpha in (*typed, *just_beside):
        assert rejected_ranks(alpha, n) == np.count_nonzero(p_values <= alpha), alpha
    for alpha in typed:  # as decimals, a rank above is reached exactly or not at all
        assert rejected_ranks(alpha, n) == math.floor(Fraction(str(alpha)) * (n + 1)), alpha


def _around(value: float) -> tuple[float, float, float, float]:
    """A float, its neighbours, and one just within the tolerance that a rounded product would have forgiven."""
    return value, math.nextafter(value, 0.0), math.nextafter(value, 1.0), value - 1e-12


@settings(max_examples=300, deadline=None)
@given(n=st.integers(1, 3000), alpha=st.floats(0.001, 0.999))
def test_ranks_agree_with_exact_arithmetic(n: int, alpha: float) -> None:
    exact = math.floor(Fraction(alpha) * (n + 1))
    if exact < 1 or min(exact + 1 - Fraction(alpha) * (n + 1), Fraction(alpha) * (n + 1) - exact) < 1e-9:
        return  # next to a whole number the p-values' own rounding decides
    assert calibrate(np.arange(n), alpha).threshold == n - min(exact, n)


@pytest.mark.parametrize("n", [1, 2, 5, 19, 20, 99, 100, 333, 2048, 20_000])
def test_the_95_percent_limit_agrees_with_scipy(n: int) -> None:
    from scipy.stats import beta

    for alpha in (0.001, 0.005, 0.01, 0.05, 0.1, 0.29, 0.5, 0.9, 0.999):
        k = math.floor(Fraction(str(alpha)) * (n + 1))
        if k < 1:
            continue
        limit = calibrate(np.arange(n), alpha).rate_limit_95
        assert limit == pytest.approx(beta.ppf(0.95, k, n + 1 - k), rel=1e-8), alpha


@settings(max_examples=150, deadline=None)
@given(a=st.integers(1, 500), b=st.integers(1, 500), q=st.floats(0.001, 0.999))
def test_beta_quantiles_agree_with_scipy(a: int, b: int, q: float) -> None:
    from scipy.stats import beta

    assert beta_quantile(q, a, b) == pytest.approx(beta.ppf(q, a, b), rel=1e-7)


@pytest.mark.parametrize("arguments", [(0, 1, 1), (1, 1, 1), (0.5, 0, 1), (0.5, 1, 0)])
def test_beta_quantile_refuses_the_impossible(arguments: tuple[float, int, int]) -> None:
    with pytest.raises(InputError):
        beta_quantile(*arguments)


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (60, 0.05), (99, 0.01), (250, 0.1)])
def test_the_promise_holds_and_is_not_wasted(n: int, alpha: float) -> None:
    rng = np.random.default_rng(n)
    rates, kept = [], 0
    sets = 3000
    for _ in range(sets):
        calibrated = calibrate(rng.random(n), alpha)
        rate = 1 - calibrated.threshold  # exact for uniform scores
        rates.append(rate)
        kept += rate <= calibrated.rate_limit_95
    error = 4 * np.std(rates) / math.sqrt(sets)
    k = math.floor(Fraction(str(alpha)) * (n + 1))
    assert np.mean(rates) <= alpha + error
    assert np.mean(rates) == pytest.approx(k / (n + 1), abs=error)
    assert kept / sets == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / sets))


def test_the_promise_holds_with_ties() -> None:
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(1500):
        calibrated = calibrate(rng.integers(0, 8, 59), 0.1)
        rates.append(calibrated.decide(rng.integers(0, 8, 200)).mean())
    assert np.mean(rates) <= 0.1


def test_p_values_of_normals_are_uniform_on_their_grid() -> None:
    rng = np.random.default_rng(1)
    p_values = [calibrate(rng.random(9), 0.1).p_value(rng.random()).item() for _ in range(8000)]
    counts = np.bincount(np.rint(np.array(p_values) * 10).astype(int), minlength=11)[1:]
    assert np.abs(counts - 800).max() < 4.5 * math.sqrt(800)


def test_default_alpha_where_it_can_be_had() -> None:
    assert calibrate(np.arange(99)).alpha == 0.01
    with pytest.warns(AnomemWarning, match=r"^98 calibration normals.*0\.01; add 1 more") as got:
        calibrated = calibrate(np.arange(98))
    assert len(got) == 1
    assert got[0].filename == __file__
    assert calibrated.alpha == calibrated.alpha_min == 1 / 99
    assert calibrated.threshold == 97


def test_one_score_is_enough_for_something() -> None:
    with pytest.warns(AnomemWarning):
        calibrated = calibrate([3.0])
    assert (calibrated.n, calibrated.alpha, calibrated.threshold) == (1, 0.5, 3.0)
    assert calibrated.rate_limit_95 == pytest.approx(0.95)


def test_an_alpha_out_of_reach_says_how_many_are_missing() -> None:
    calibrated = calibrate(np.arange(19), 0.05)
    with pytest.raises(CalibrationError, match="alpha 0.01 needs 99 .* there are 19; add 80 more"):
        calibrated.with_alpha(0.01)
    for alpha in (0.05, 0.01, 0.003, 1 / 3, 0.07, 1e-6):
        with pytest.raises(CalibrationError) as caught:
            calibrate([1.0], alpha)
        needed = 1 + int(str(caught.value).split("add ")[1].split(" ")[0])
        if needed < 10_000:
            assert calibrate(np.arange(needed), alpha).threshold == needed - 1
            with pytest.raises(CalibrationError, match="add 1 more"):
                calibrate(np.arange(needed - 1), alpha)


def test_an_alpha_can_be_checked_before_there_are_scores() -> None:
    check_alpha(None, 1)
    check_alpha(0.05, 19)
    with pytest.raises(CalibrationError, match="add 1 more"):
        check_alpha(0.05, 18)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, math.nan, math.inf, "much", 5e-324])
def test_an_alpha_that_is_none(alpha: float) -> None:
    with pytest.raises(CalibrationError, match="alpha"):
        calibrate(np.arange(50), alpha)


def test_with_alpha_changes_alpha_alone() -> None:
    first = calibrate(np.random.default_rng(0).random(200), 0.01, "bfloat16")
    second = first.with_alpha(0.2)
    assert (second.alpha, second.precision) == (0.2, "bfloat16")
    np.testing.assert_array_equal(second.scores, first.scores)
    assert second.threshold < first.threshold
    assert second.with_alpha(0.01) == first
    assert hash(second.with_alpha(0.01)) == hash(first)
    assert second != first
    assert first != "something else"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e39])
def test_calibration_scores_must_be_finite(bad: float) -> None:
    with pytest.raises(InputError):
        calibrate([0.0, bad], 0.5)


@pytest.mark.parametrize("bad", [[], [[1.0]], 3.0])
def test_calibration_scores_must_be_a_list(bad: object) -> None:
    with pytest.raises(InputError, match="shape"):
        calibrate(bad, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "scores",
    [
        np.array([2, 1], np.float32),
        np.array([1, 2], np.float64),
        np.array([[1]], np.float32),
        np.array([], np.float32),
        np.array([np.nan], np.float32),
    ],
)
def test_calibration_itself_checks_its_scores(scores: np.ndarray) -> None:
    with pytest.raises(InputError, match="calibration scores"):
        Calibration(scores, 0.5)


def test_a_score_that_is_nan_is_never_normal() -> None:
    calibrated = calibrate(np.arange(10), 0.5)
    for method in (calibrated.decide, calibrated.p_value):
        with pytest.raises(InputError, match="1 of 2 scores are not a number"):
            method([1.0, math.nan])
    assert calibrated.decide([math.inf, -math.inf]).tolist() == [True, False]
    assert calibrated.p_value([math.inf, -math.inf]).tolist() == [1 / 11, 1]


def test_scores_are_a_copy_that_stays() -> None:
    scores = np.arange(5, dtype=np.float32)
    calibrated = Calibration(scores, 0.5)
    scores[:] = 9
    assert calibrated.threshold == 2
    assert not calibrated.scores.flags.writeable


# --- groups ------------------------------------------------------------------------------------


def test_one_image_per_group_is_no_group_to_the_bit() -> None:
    scores = np.random.default_rng(0).normal(size=57).astype(np.float32)
    plain, grouped = calibrate(scores, 0.05), calibrate(scores, 0.05, groups=[*range(50), *[None] * 7])
    assert grouped == plain
    assert grouped.groups is None
    new = np.linspace(-4, 4, 301)
    assert np.array_equal(plain.p_value(new), grouped.p_value(new))
    assert "groups" not in grouped.facts()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), min_size=2, max_size=40), st.integers(0, 9))
def test_group_p_values_are_the_expectation_over_one_image_per_group(images: list[tuple[int, int]], new: int) -> None:
    by_group: dict[int, list[int]] = {}
    for score, group in images:
        by_group.setdefault(group, []).append(score)
    n = len(by_group)
    wanted = (1 + sum(Fraction(sum(s >= new for s in scores), len(scores)) for scores in by_group.values())) / (n + 1)
    calibration = calibrate([s for s, _ in images], (n + 0.5) / (n + 1), groups=[g for _, g in images])
    assert calibration.n_groups == n
    assert calibration.p_value(new) == float(wanted)
    assert calibration.alpha_min == 1 / (n + 1)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), min_size=2, max_size=40),
    st.floats(0.15, 0.95),
)
def test_the_threshold_decides_as_p_values_of_groups_do(images: list[tuple[int, int]], alpha: float) -> None:
    scores, groups = zip(*images, strict=True)
    n = len(set(groups))
    if alpha < 1 / (n + 1):
        return
    calibration = calibrate(scores, alpha, groups=groups)
    new = np.arange(-1, 23) / 1.0
    assert np.array_equal(calibration.decide(new), calibration.p_value(new) <= alpha)


@pytest.mark.parametrize("within", [0.01, 1.0])
@pytest.mark.parametrize("size", [8, None])
def test_the_promise_holds_for_new_parts(within: float, size: int | None) -> None:
    rng = np.random.default_rng(0)
    rates, counted = [], []
    for _ in range(400):
        sizes = np.full(16, size) if size else rng.integers(1, 12, 16)
        groups = np.repeat(np.arange(16), sizes)
        scores = rng.normal(size=16)[groups] + rng.normal(scale=within, size=groups.size)
        new = rng.normal(size=500) + rng.normal(scale=within, size=500)
        rates.append(calibrate(scores, 0.1, groups=groups.tolist()).decide(new).mean())
        counted.append(calibrate(scores, 0.02).decide(new).mean())
    assert np.mean(rates) <= 0.1 + 2 * np.std(rates) / 20
    if within < 0.1 and size:
        assert np.mean(counted) > 0.04  # photographs counted as parts break the promise of 0.02


def test_groups_count_in_the_smallest_alpha_and_its_refusal() -> None:
    groups = [i // 4 for i in range(40)]
    with pytest.warns(AnomemWarning, match="10 calibration groups of normals allow a false-alarm rate of 0.0909"):
        assert calibrate(range(40), groups=groups).alpha == 1 / 11
    with pytest.raises(CalibrationError, match="needs 19 calibration groups of normals and there are 10; add 9 more"):
        calibrate(range(40), 0.05, groups=groups)
    with pytest.raises(InputError, match="3 groups for 40"):
        calibrate(range(40), 0.5, groups=["a", "b", "c"])


def test_a_group_is_judged_by_its_maximum() -> None:
    calibration = calibrate([1, 2, 5, 6, 3, 9], 0.5, groups=["a", "a", "b", "b", "c", "c"])
    assert calibration.group_p_value([0, 7]) == 2 / 4
    assert calibration.group_p_value([1, 2]) == 1
    assert calibration.group_p_value([0, 10]) == 1 / 4


def test_equal_calibrations_have_equal_groups() -> None:
    scores = [1.0, 2.0, 3.0, 4.0]
    one, other = calibrate(scores, 0.4, groups=[0, 0, 1, 1]), calibrate(scores, 0.4, groups=["x", "y", "y", "x"])
    assert one == calibrate(scores, 0.4, groups=["b", "b", "a", "a"])
    assert one != other
    assert one != calibrate(scores, 0.4)
    assert one.with_alpha(0.5).n_groups == 2
