"""Limits of the promised false-alarm rate: their values, and simulations with exchangeable scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from anomem.benchmark.protocols.false_alarm_rate import false_alarm_quantile, redraw
from anomem.runtime.calibration import calibrate, rejected_ranks

SPLITS = 1000


@pytest.mark.parametrize(("m", "n", "k"), [(190, 152, 7), (60, 108, 1), (12, 20, 2), (1000, 99, 10), (1, 9, 1)])
def test_quantile_is_the_beta_binomials(m: int, n: int, k: int) -> None:
    quantile = false_alarm_quantile(m, n, k)
    assert quantile == stats.betabinom.ppf(0.95, m, k, n + 1 - k)

    def chance(count: int) -> float:
        """Pr(count false alarms) by counting orders: k ranks from the top, all orders of n + m scores alike."""
        return math.comb(k - 1 + count, count) * math.comb(n - k + m - count, m - count) / math.comb(n + m, m)

    up_to = np.cumsum([chance(count) for count in range(m + 1)])
    assert up_to[-1] == pytest.approx(1.0)
    assert up_to[quantile] >= 0.95
    assert quantile == 0 or up_to[quantile - 1] < 0.95


@pytest.mark.parametrize(("n", "alpha"), [(99, 0.01), (152, 0.05), (40, 0.1)])
def test_the_rate_of_a_calibration_set_follows_the_beta_distribution(n: int, alpha: float) -> None:
    """By simulation: n uniform scores calibrate, and the true rate is what lies above the threshold."""
    rng = np.random.default_rng(0)
    rates, limits = np.empty(SPLITS), np.empty(SPLITS)
    for i in range(SPLITS):
        calibration = calibrate(rng.random(n, dtype=np.float32), alpha)
        rates[i], limits[i] = 1 - calibration.threshold, calibration.rate_limit_95
    k = rejected_ranks(alpha, n)
    assert stats.kstest(rates, stats.beta(k, n + 1 - k).cdf).pvalue > 0.001
    assert len(set(limits)) == 1
    # 95 % of the sets keep below the printed limit, within four errors; on the average alpha is kept.
    assert np.mean(rates <= limits[0]) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / SPLITS))
    assert np.mean(rates) == pytest.approx(k / (n + 1), abs=4 * float(np.std(rates)) / math.sqrt(SPLITS))
    assert k / (n + 1) <= alpha


def test_exchangeable_normals_keep_the_promise() -> None:
    """Fresh pools: rates average k / (n + 1); the quantile is exceeded in at most 5 % of them, but not in none."""
    n, m, alpha = 99, 150, 0.05
    rng = np.random.default_rng(1)
    found = [
        redraw(rng.normal(size=n + m).astype(np.float32), np.full(3, 9.0, np.float32), n, alpha, 1, seed)
        for seed in range(800)
    ]
    rates = np.asarray([split["rate"] for split in found])
    assert np.mean(rates) == pytest.approx(found[0]["expected"], abs=4 * float(np.std(rates)) / math.sqrt(len(rates)))
    exceeded = 1 - np.mean([split["each"][0]["within_quantile"] for split in found])
    exact = stats.betabinom.sf(found[0]["quantile_95"], m, found[0]["k"], n + 1 - found[0]["k"])
    assert exact <= 0.05
    assert exceeded == pytest.approx(exact, abs=4 * math.sqrt(exact / len(found)))
    assert {split["detection"] for split in found} == {1.0}


def test_normals_that_have_drifted_break_it() -> None:
    rng = np.random.default_rng(2)
    pool = np.r_[rng.normal(size=100), rng.normal(1.5, size=100)].astype(np.float32)
    found = redraw(pool, np.asarray([9.0], np.float32), 100, 0.05, 20, 0)
    mixed = np.mean([split["rate"] for split in found["each"]])
    assert mixed == pytest.approx(0.05, abs=0.03), "drawn together, both parts are exchangeable again"
    calibration = calibrate(pool[:100], 0.05)
    assert calibration.decide(pool[100:]).sum() > false_alarm_quantile(100, 100, rejected_ranks(0.05, 100))


def test_splits_of_a_pool() -> None:
    pool, anomalous = np.arange(150, dtype=np.float32), np.asarray([10.0, 200.0], np.float32)
    found = redraw(pool, anomalous, 100, 0.05, 10, seed=3)
    assert {name: found[name] for name in ("n", "fresh", "k", "attainable")} == {
        "n": 100,
        "fresh": 50,
        "k": 5,
        "attainable": True,
    }
    assert len(found["each"]) == 10
    assert len({split["n_false"] for split in found["each"]}) > 1, "who calibrates is drawn anew"
    assert found["rate"] == pytest.approx(np.mean([split["n_false"] / 50 for split in found["each"]]))
    assert found["expected"] == pytest.approx(5 / 101)
    assert found["rate_limit_95"] == pytest.approx(stats.beta.ppf(0.95, 5, 96))
    assert all(0.5 <= split["detection"] <= 1.0 for split in found["each"])
    many = redraw(pool, anomalous, 100, 0.05, 400, seed=0)
    for split in many["each"]:
        assert split["within_quantile"] == (split["n_false"] <= many["quantile_95"])
        assert split["within_limit"] == (split["n_false"] / 50 <= many["rate_limit_95"])
    assert many["quantile_95"] in {split["n_false"] for split in many["each"]}
    assert redraw(pool, anomalous, 100, 0.05, 10, seed=3) == found
    assert redraw(pool, anomalous, 100, 0.05, 10, seed=4) != found


def test_an_alpha_that_n_cannot_carry() -> None:
    pool = np.arange(150, dtype=np.float32)
    assert redraw(pool, pool[:1], 98, 0.01, 10, 0) == {"n": 98, "fresh": 52, "k": 0, "attainable": False}
    assert redraw(pool, pool[:1], 99, 0.01, 10, 0)["attainable"]
    assert not redraw(pool, pool[:1], 150, 0.05, 10, 0)["attainable"], "nobody is left to be fresh"
