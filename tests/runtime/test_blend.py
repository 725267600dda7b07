"""Blended calibration: what is proven, what is measured, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomem.errors import CalibrationError, InputError
from anomem.runtime.blend import aligned, blended
from anomem.runtime.calibration import calibrate

few = st.integers(-8, 8).map(float)


@given(st.lists(few, min_size=1, max_size=40), st.lists(few, min_size=10, max_size=25))
def test_up_to_the_highest_fresh_score_p_values_are_at_least_those_of_fresh_normals(
    earlier: list[float], fresh: list[float]
) -> None:
    former, alone = calibrate(earlier, 0.6), calibrate(fresh, 0.5)
    both = blended(former, fresh, 0.5)
    assert (both.n, both.blended) == (len(earlier) + len(fresh), len(fresh))
    scores = np.unique([*fresh, *(np.asarray(fresh) - 0.5)])
    assert (both.p_value(scores) >= alone.p_value(scores) - 1e-12).all()


def test_moved_scores_have_the_median_and_the_stretched_spread_of_the_fresh() -> None:
    earlier = np.linspace(-1, 1, 101)
    fresh = 10 + 3 * np.linspace(-1, 1, 25)
    moved = aligned(earlier, fresh)
    assert np.isclose(moved[0], 10 + 3 * 1.2, atol=0.3)  # 1 + 1 / sqrt(25)
    assert (moved >= fresh.min()).all()
    assert (np.diff(moved) <= 0).all()
    assert aligned([2.0] * 30, fresh).max() == pytest.approx(13.0)


@pytest.mark.parametrize(("m", "moved", "stretched"), [(10, 0.0, 1.0), (20, 2.0, 1.6), (50, -1.0, 0.7)])
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_the_rate_after_a_shift(m: int, moved: float, stretched: float, alpha: float) -> None:
    rng, rates = np.random.default_rng([m, round(100 * alpha)]), []
    for _ in range(400):
        own, fresh, new = rng.gamma(4, size=150), rng.gamma(4, size=m), rng.gamma(4, size=100)
        both = blended(calibrate(own, 0.05), moved + stretched * fresh, alpha)
        rates.append(both.decide(moved + stretched * new).mean())
    error = np.std(rates) / np.sqrt(400)
    assert np.mean(rates) <= max(alpha, 1 / (m + 1)) + 2 * error  # proven
    assert np.mean(rates) <= 2 * alpha + 2 * error  # measured


def test_the_bound_where_the_shape_changes() -> None:
    rng, rates = np.random.default_rng(1), []
    for _ in range(400):
        fresh, new = rng.standard_cauchy(20), rng.standard_cauchy(100)
        both = blended(calibrate(rng.normal(size=150), 0.05), fresh, 0.01)
        rates.append(both.decide(new).mean())
        assert both.bound == 1 / 21
    assert 0.02 < np.mean(rates) <= 1 / 21 + 2 * np.std(rates) / 20


def test_what_cannot_be_blended() -> None:
    former, fresh = calibrate(range(99), 0.05), np.arange(20.0)
    with pytest.raises(InputError, match="9 fresh normals are too few .* give 10 or more"):
        blended(former, fresh[:9], 0.05)
    with pytest.raises(InputError, match="blended already"):
        blended(blended(former, fresh, 0.05), fresh, 0.05)
    with pytest.raises(InputError, match="not available where p-values count groups"):
        blended(former, fresh, 0.05, groups=["a"] * 20)
    with pytest.raises(InputError, match="not available with strata"):
        blended(calibrate(range(99), 0.05, strata=["a"] * 50 + ["b"] * 49), fresh, 0.05)
    with pytest.raises(InputError, match="scores in bfloat16 do not join"):
        blended(former, fresh, 0.05, precision="bfloat16")
    with pytest.raises(CalibrationError, match="alpha 0.005 needs 199 calibration normals and there are 119"):
        blended(former, fresh, 0.005)
    assert blended(former, fresh, None).alpha == 0.05
