"""Verdicts about groups: m-subsets against a slow reference, and their rate by simulation."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomem.errors import InputError
from anomem.runtime.calibration import Calibration, calibrate
from anomem.runtime.group_verdicts import judge_groups
from anomem.runtime.scored import Scored


def scored(name: str, score: float, group: object = None, **facts: object) -> Scored:
    return Scored(0, name, 1, score, 0.5, False, group=group, **facts)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=2, max_size=20),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
)
def test_the_p_value_of_a_group_is_that_of_all_subsets_of_its_size(
    images: list[tuple[int, int]], new: list[int]
) -> None:
    by_group: dict[int, list[int]] = {}
    for score, group in images:
        by_group.setdefault(group, []).append(score)
    shares = []
    for scores in by_group.values():
        subsets = list(combinations(scores, len(new)))
        if subsets:
            shares.append(Fraction(sum(max(subset) >= max(new) for subset in subsets), len(subsets)))
    wanted = float((1 + sum(shares)) / (len(shares) + 1))
    calibration = calibrate([s for s, _ in images], 0.99, groups=[g for _, g in images])
    assert calibration.group_p_value(new) == wanted
    if len(new) == 1:
        assert calibration.group_p_value(new) == calibration.p_value(new)[0]


@pytest.mark.parametrize("m", [1, 3, 6])
@pytest.mark.parametrize("within", [0.05, 1.0])
def test_the_rate_of_groups_of_another_size(m: int, within: float) -> None:
    """Calibration groups of 6 to 12 correlated images; new groups of m."""
    rng, rejected, naive = np.random.default_rng([m, round(within)]), [], []
    for _ in range(400):
        groups = np.repeat(np.arange(19), rng.integers(6, 13, 19))
        scores = rng.normal(size=19)[groups] + rng.normal(scale=within, size=groups.size)
        calibration = calibrate(scores, 0.1, groups=groups.tolist())
        for _ in range(5):
            new = rng.normal() + rng.normal(scale=within, size=m)
            rejected.append(calibration.group_p_value(new) <= 0.1)
            naive.append(bool(calibration.decide(new).any()))
    assert np.mean(rejected) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 400)
    if m == 6 and within == 1.0:
        assert np.mean(naive) > 0.2  # any rejected image rejects more groups


@pytest.mark.parametrize("dependent", [False, True])
def test_single_images_of_unequal_groups_need_no_factor(dependent: bool) -> None:
    """A random image of a random new group; sizes may depend on the group's level."""
    rng, rejected = np.random.default_rng(dependent), []
    for _ in range(1500):
        level = rng.normal(size=20)
        sizes = np.where(level > 0.5, 12, 2) if dependent else rng.integers(1, 13, 20)
        groups = np.repeat(np.arange(19), sizes[:19])
        scores = level[groups] + rng.normal(scale=0.3, size=groups.size)
        new = level[19] + rng.normal(scale=0.3)
        rejected.append(bool(calibrate(scores, 0.1, groups=groups.tolist()).decide(new)))
    assert np.mean(rejected) <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 1500)


def parts() -> Calibration:
    return calibrate(np.arange(40.0), 0.11, groups=[i // 4 for i in range(40)])


def test_groups_are_judged_by_their_highest_score() -> None:
    results = [scored("1", 3, "a"), scored("2", 41, "a"), scored("3", 5, "b"), scored("4", 50)]
    results.append(Scored(4, "5", 0, np.nan, np.nan, False, error="damaged", group="b"))
    a, b, alone = judge_groups(results, parts(), fdr=0.2)
    assert (a.group, a.images, a.score, a.p_value, a.anomalous) == ("a", ("1", "2"), 41, 1 / 11, True)
    assert (b.images, b.anomalous, b.anomalous_fdr) == (("3",), False, False)
    assert (alone.group, alone.anomalous, alone.anomalous_fdr, a.anomalous_fdr) == ("4", True, True, True)
    assert judge_groups(results, parts())[0].anomalous_fdr is None


def test_a_group_larger_than_those_of_the_calibration_is_not_judged() -> None:
    (found,) = judge_groups([scored(str(i), 99.0, "a") for i in range(5)], parts())
    assert (found.p_value, found.anomalous, found.alpha_min) == (1.0, None, 1.0)
    mixed = calibrate(np.arange(22.0), 0.25, groups=[*[i // 4 for i in range(16)], *range(10, 16)])
    (found,) = judge_groups([scored(str(i), 99.0, "a") for i in range(3)], mixed)
    assert (found.anomalous, found.alpha_min) == (True, 1 / 5)
    (found,) = judge_groups([scored(str(i), 99.0, "a") for i in range(3)], mixed.with_alpha(0.15))
    assert found.anomalous is None


def test_a_group_has_one_stratum() -> None:
    calibration = calibrate(range(20), 0.2, strata=["x"] * 10 + ["y"] * 10)
    with pytest.raises(InputError, match="group a: images of"):
        judge_groups([scored("1", 3, "a", stratum="x"), scored("2", 3, "a", stratum="y")], calibration)
    (found,) = judge_groups([scored("1", 9.5, "a", stratum="x")], calibration)
    assert (found.stratum, found.p_value) == ("x", 1 / 11)
